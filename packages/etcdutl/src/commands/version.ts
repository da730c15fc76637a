import { ETCD_VERSION } from "@etcd-ts/server/storage";
import type { CommandContext } from "../context.ts";

/** The same in every format, as scripts know it. */
export function runVersion({ io }: CommandContext): void {
  io.out.write(`etcdutl version: ${ETCD_VERSION}\nAPI version: ${ETCD_VERSION.replace(/\.\d+$/, "")}\n`);
}
