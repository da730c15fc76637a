import { ETCD_VERSION } from "@etcd-ts/server/storage";
import type { CommandContext } from "../context.ts";
import { printDone } from "../run-job.ts";

export function runVersion(context: CommandContext): void {
  const apiVersion = ETCD_VERSION.replace(/\.\d+$/, "");
  if (context.flags.string("write-out") === "json") printDone(context, { version: ETCD_VERSION, apiVersion });
  else context.io.out.write(`etcdutl version: ${ETCD_VERSION}\nAPI version: ${apiVersion}\n`);
}
