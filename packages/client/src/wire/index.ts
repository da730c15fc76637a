/**
 * The wire room's door: messages with their codecs, services, and the error table. Each message `X` is an interface
 * and a codec of the same name: `X.create(init)`, `X.encode(init)`, `X.decode(bytes)`, `X.fields`, `X.typeName`.
 *
 * ```ts
 * const bytes = PutRequest.encode({ key: Buffer.from("foo"), value: Buffer.from("bar") });
 * const request = PutRequest.decode(bytes); // every field is there: request.lease === 0n
 * ```
 */
export { Code, codeName, type ErrorKind, EtcdError, errorTable, etcdErrorFromStatus } from "./errors.ts";
export * from "./gen/auth.gen.ts";
export * from "./gen/election.gen.ts";
export * from "./gen/health.gen.ts";
export * from "./gen/kv.gen.ts";
export * from "./gen/lock.gen.ts";
export * from "./gen/rpc.gen.ts";
export {
  bytesString,
  type Codec,
  decodeWith,
  EMPTY_BYTES,
  type EnumInfo,
  encodeWith,
  type FieldInfo,
  type Init,
  NESTING_MAX,
  Reader,
  readAgain,
  type ScalarType,
  stringBytes,
  WireError,
  Writer,
} from "./runtime.ts";
export type { MethodInfo, MethodKind, RequestOf, ResponseOf, ServiceInfo } from "./services.ts";
