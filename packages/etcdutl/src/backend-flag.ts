/** Which kind of database a command writes: `--backend`, else ETCDUTL_BACKEND, else that of our server. */
import type { BackendKind } from "@etcd-ts/server/storage";
import type { CommandContext } from "./context.ts";
import { badArgs } from "./exit.ts";

export function backendFlag({ flags, io }: CommandContext): BackendKind {
  const kind = flags.string("backend") || io.env["ETCDUTL_BACKEND"] || "lmdb";
  if (kind === "lmdb" || kind === "bbolt") return kind;
  throw badArgs(`unknown backend "${kind}": it is lmdb or bbolt`);
}
