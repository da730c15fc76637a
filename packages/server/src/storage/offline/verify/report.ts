/** What `verify` found, and how bad that is. */

/**
 * `repairable`: a start of the server or another command mends it, and nothing acknowledged is lost by that. `lost`: data
 * of this member is gone, and has to come from a snapshot or the other members.
 */
export type Severity = "note" | "repairable" | "lost";
export type Verdict = "clean" | "repairable" | "lost";

export interface Finding {
  readonly severity: Severity;
  /** The file. */
  readonly path: string;
  /** What is wrong, with the place in the file. */
  readonly problem: string;
  /** What it means: what is lost, or what mends it. */
  readonly consequence: string;
}

/** A damaged file has no end of problems; so many of a file are told, the others counted. */
const TOLD_PER_FILE = 50;

export class Report {
  readonly findings: Finding[] = [];
  readonly #untold = new Map<string, number>();
  #worst: Verdict = "clean";

  add(severity: Severity, path: string, problem: string, consequence: string): void {
    if (severity === "lost" || (severity === "repairable" && this.#worst === "clean")) this.#worst = severity;
    const told = this.findings.filter((finding) => finding.path === path).length;
    if (told < TOLD_PER_FILE) this.findings.push({ severity, path, problem, consequence });
    else this.#untold.set(path, (this.#untold.get(path) ?? 0) + 1);
  }

  /** Whether something of a file, or of a file in a directory, is lost. */
  isLost(path: string): boolean {
    return this.findings.some(
      (finding) => finding.severity === "lost" && (finding.path === path || finding.path.startsWith(`${path}/`)),
    );
  }

  get verdict(): Verdict {
    return this.#worst;
  }

  /** Problems of a file beyond those that are told. */
  get untold(): ReadonlyMap<string, number> {
    return this.#untold;
  }
}
