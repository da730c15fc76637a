/** etcd's own `db`: bbolt's structure and the form of the rows. It has no checksums, so a value may be wrong unseen. */
import { openBolt } from "../../bolt/index.ts";
import { isDamage, openStore } from "../store.ts";
import { inspectFile } from "../tasks.ts";
import type { Report } from "./report.ts";
import { nameOfRowAt, newRowFacts, type RowFacts, takeRow, verifyFacts } from "./rows.ts";

export interface DatabaseContent {
  readonly facts: RowFacts;
  readonly sizeBytes: number;
  /** As `snapshot status` prints it; undefined when the file cannot be read to its end. */
  readonly hash: number | undefined;
}

const CONSEQUENCE =
  "what hangs below it is lost to this member: restore a snapshot, or remove the member and add it anew";

export function verifyBoltFile(
  file: string,
  report: Report,
  onProgress: (bytesRead: number) => void,
): DatabaseContent | undefined {
  const facts = newRowFacts();
  let sizeBytes = 0;
  let hash: number | undefined;
  try {
    const bolt = openBolt(file);
    try {
      ({ sizeBytes } = bolt);
      const inspection = inspectFile(file);
      hash = inspection?.hash;
      if (!inspection) {
        const problems = bolt.check();
        for (const problem of problems) report.add("lost", file, problem, CONSEQUENCE);
        if (problems.length > 0) return undefined;
      }
    } finally {
      bolt.close();
    }
    const store = openStore(file, "bbolt");
    try {
      for (const bucket of store.buckets) {
        for (const rows = store.cursor(bucket); rows.next(); onProgress(store.bytesRead)) {
          const problem = takeRow(bucket, rows, facts);
          if (problem === undefined) continue;
          report.add("lost", file, `${nameOfRowAt(bucket, rows.key, rows.value)}: ${problem}`, "this row is lost");
        }
      }
    } finally {
      store.close();
    }
  } catch (error) {
    if (!isDamage(error) && !(error instanceof Error && error.name === "OfflineError")) throw error;
    report.add("lost", file, (error as Error).message, CONSEQUENCE);
    return undefined;
  }
  verifyFacts(file, facts, report);
  return { facts, sizeBytes, hash };
}
