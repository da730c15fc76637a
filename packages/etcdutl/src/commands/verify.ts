import { verifyDataDir } from "@etcd-ts/server/storage";
import type { CommandContext } from "../context.ts";
import { LOST, REPAIRABLE, SUCCESS } from "../exit.ts";
import { printAnswer, requireFormat } from "../print.ts";
import { progressBar } from "../progress.ts";

/** Each finding on two lines, then the verdict, which is the exit code as well. */
export async function runVerify(context: CommandContext): Promise<number> {
  requireFormat(context);
  const { flags, io } = context;
  const bar = progressBar(io);
  const found = await verifyDataDir({
    dataDir: flags.string("data-dir"),
    walDir: flags.string("wal-dir"),
    onProgress: bar.onProgress,
  }).finally(() => bar.end());
  const { verdict, findings, untold, hash, memberId, clusterId, ...rest } = found;
  const hashText = hash === undefined ? "" : hash.toString(16);
  const lines = findings.map(
    ({ severity, path, problem, consequence }) => `${severity}: ${path}: ${problem}\n  ${consequence}`,
  );
  for (const [path, count] of untold) lines.push(`${count} more in ${path}`);
  const facts = `${rest.database} (${rest.backend}): ${rest.rows} rows, revision ${rest.revision}, index ${rest.consistentIndex}, hash ${hashText || "unreadable"}`;
  printAnswer(context, {
    simple: [...lines, facts, verdict].join("\n"),
    json: {
      verdict,
      findings,
      untold: Object.fromEntries(untold),
      ...rest,
      hash: hash ?? null,
      memberId: memberId?.toString(16) ?? null,
      clusterId: clusterId?.toString(16) ?? null,
    },
    fields: [
      ...findings.flatMap(({ severity, path, problem, consequence }): [string, string][] => [
        ["Severity", severity],
        ["Path", path],
        ["Problem", problem],
        ["Consequence", consequence],
      ]),
      ["Database", rest.database],
      ["Rows", rest.rows],
      ["Revision", rest.revision],
      ["Index", rest.consistentIndex],
      ["Hash", hash ?? ""],
      ["Verdict", verdict],
    ],
    table: {
      header: ["VERDICT", "FINDINGS", "ROWS", "REVISION", "INDEX", "HASH"],
      row: [
        verdict,
        String(findings.length),
        String(rest.rows),
        String(rest.revision),
        String(rest.consistentIndex),
        hashText,
      ],
    },
  });
  return verdict === "clean" ? SUCCESS : verdict === "repairable" ? REPAIRABLE : LOST;
}
