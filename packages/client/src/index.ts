/** The etcd client library: `connect()` gives a {@link Client}; its facades are `kv`, `lease`, `cluster`, `maintenance`, `auth`. */
export { AuthClient } from "./auth.ts";
export { type BytesLike, type KeyRange, keyAndEnd, prefixRangeEnd, toBytes, toText } from "./bytes.ts";
export { Client, connect, type Duplex, type MethodOf } from "./client.ts";
export { ClusterClient } from "./cluster.ts";
export { ConnectionError, codeOf, isBrokenConnection, RpcError } from "./errors.ts";
export {
  type CompareOperator,
  compare,
  type DeleteOptions,
  deleteOp,
  type GetOptions,
  getOp,
  KvClient,
  type PutOptions,
  putOp,
  TxnBuilder,
  txnOp,
} from "./kv.ts";
export { LeaseClient } from "./lease.ts";
export { MaintenanceClient } from "./maintenance.ts";
export { canPage, rangePages } from "./range-pages.ts";
export type { CallOptions, ClientOptions, FailedAttempt, TlsOptions } from "./options.ts";
export { Watcher, type WatchInit, type WatchOptions, watchInit } from "./watch.ts";
export { Code, EtcdError } from "./wire/index.ts";
