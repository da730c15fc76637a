import { migrateEngine, migrateVersion, OfflineError, parseTargetVersion } from "@etcd-ts/server/storage";
import type { CommandContext } from "../context.ts";
import { badArgs } from "../exit.ts";
import { hex, printDone, printPlan, runJob } from "../run-job.ts";

/** `--target-version` is 3.6's; `--to` is ours. One of them at a time: each is a step of its own. */
export async function runMigrate(context: CommandContext): Promise<void> {
  const { flags } = context;
  const hasVersion = flags.isSet("target-version");
  const hasEngine = flags.isSet("to");
  if (hasVersion && hasEngine) throw badArgs("--target-version and --to are steps of their own: one at a time");
  if (hasEngine) await runEngine(context);
  else if (hasVersion) await runVersion(context);
  else throw badArgs('one of the flags "target-version" and "to" is needed');
}

async function runVersion(context: CommandContext): Promise<void> {
  const { flags, logger } = context;
  let target: ReturnType<typeof parseTargetVersion>;
  try {
    target = parseTargetVersion(flags.string("target-version"));
  } catch (error) {
    if (error instanceof OfflineError) throw badArgs(error.message);
    throw error;
  }
  const isDryRun = flags.bool("dry-run");
  const common = { dataDir: flags.string("data-dir"), walDir: flags.string("wal-dir"), logger, isDryRun };
  const result = await runJob(context, (job) =>
    migrateVersion({ ...job, ...common, target, force: flags.bool("force") }),
  );
  if (!isDryRun) {
    printDone(context, { ...result });
    return;
  }
  const plan = result.isChanged ? `from ${result.from} to ${result.to}` : `nothing: it is ${result.to} already`;
  printPlan(
    context,
    [
      ["would migrate", plan],
      ["in", result.path],
    ],
    { ...result },
  );
}

async function runEngine(context: CommandContext): Promise<void> {
  const { flags, logger } = context;
  const to = flags.string("to");
  if (to !== "lmdb" && to !== "bbolt") throw badArgs(`unknown backend "${to}": it is lmdb or bbolt`);
  const isDryRun = flags.bool("dry-run");
  const common = { dataDir: flags.string("data-dir"), walDir: flags.string("wal-dir"), logger, isDryRun };
  const { clusterId, memberId, ...rest } = await runJob(context, (job) => migrateEngine({ ...job, ...common, to }));
  const json = { ...rest, clusterId: hex(clusterId), memberId: hex(memberId) };
  if (!isDryRun) {
    printDone(context, json);
    return;
  }
  printPlan(
    context,
    [
      ["would migrate", rest.isChanged ? `from ${rest.from} to ${rest.to}` : `nothing: it is ${rest.to} already`],
      ["into", rest.path],
      ["bytes now", String(rest.beforeBytes)],
      ["member", `${json.memberId} of cluster ${json.clusterId}, unchanged`],
    ],
    json,
  );
}
