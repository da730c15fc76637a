import type { CommandContext } from "../context.ts";
import { version } from "../version.ts";

/** `version`: the versions whose behaviour this is; a person at a terminal also sees our own. */
export async function runVersion({ io }: CommandContext): Promise<void> {
  io.out.write(`etcdctl version: ${version.etcd}\nAPI version: ${version.api}\n`);
  if (io.err.isTerminal && io.out.isTerminal) io.err.write(`(etcd-ts ${version.own}, Node ${process.versions.node})\n`);
}
