// How a failure is told: in etcdctl's words, byte for byte; below them, to a person at a terminal, what may help; or, for
// programs, as one JSON object (--errors=json).
import { openColors, wantsColors } from "../color.ts";
import { codeNameOf, errorText, rpcCodeOf } from "../errors.ts";
import { ERROR, ExitError } from "../exit.ts";
import type { Io } from "../io.ts";
import type { CommandPath } from "./command.ts";
import { inheritedFlags, localFlags } from "./command.ts";
import { editDistance, findCommand, UnknownCommandError } from "./find.ts";
import { FlagError, type FlagSet } from "./flags.ts";
import { helpText } from "./help.ts";
import type { Trace } from "./make-context.ts";
import { root } from "./tree.ts";

const DEADLINE_EXCEEDED = 4;
const UNAVAILABLE = 14;

const exitNames: Readonly<Record<number, string>> = {
  1: "Error",
  2: "BadConnection",
  3: "InvalidInput",
  4: "BadFeature",
  5: "Interrupted",
  128: "BadArgs",
};

interface Circumstances {
  readonly trace: Trace;
  /** Undefined when the command was not found. */
  readonly flags: FlagSet | undefined;
}

/** Says what went wrong. @returns the exit code */
export async function tellFailure(io: Io, error: unknown, { trace, flags }: Circumstances): Promise<number> {
  const { exitCode, isSpoken } = error instanceof ExitError ? error : { exitCode: ERROR, isSpoken: false };
  if (errorsFormat(io, flags) === "json") {
    const finding = isConnectionError(error) ? (await findings(trace)).find((found) => found !== undefined) : undefined;
    const code = codeNameOf(error) ?? exitNames[exitCode] ?? "Error";
    const endpoint = finding?.endpoint ?? trace.endpoint;
    const object = { code, message: textOf(error), step: finding?.step ?? trace.step, endpoint, exitCode };
    io.err.write(`${JSON.stringify(object)}\n`);
    return exitCode;
  }
  const colors = await openColors(wantsColors(flags?.string("color") ?? "auto", io.err.isTerminal, io.env));
  const label = colors.bad("Error:");
  if (error instanceof UnknownCommandError) {
    // cobra says it, then etcdctl says it again.
    io.err.write(`${label} ${error.message}\nRun 'etcdctl --help' for usage.\n${label} ${error.message}\n`);
    return exitCode;
  }
  if (error instanceof FlagError) {
    const { path } = findCommand(root, io.argv);
    io.err.write(`${label} ${error.message}\n`);
    io.out.write(helpText(path));
    io.err.write(`\n${label} ${error.message}\n`);
    if (io.err.isTerminal) suggestFlag(io, path, error.message);
    return exitCode;
  }
  if (!isSpoken) io.err.write(`${label} ${textOf(error)}\n`);
  if (!io.err.isTerminal) return exitCode;
  if (isConnectionError(error)) {
    for (const found of await findings(trace)) {
      if (!found) continue;
      io.err.write(`  ${colors.name(found.endpoint)}: ${found.step}: ${found.problem}\n`);
      io.err.write(`    ${colors.faint(`try: ${found.advice}`)}\n`);
    }
  } else if (trace.step === "authentication") {
    io.err.write(
      `  ${colors.faint("auth: check --user, and the password (--password-file, ETCDCTL_PASSWORD or the prompt)")}\n`,
    );
  }
  return exitCode;
}

const textOf = (error: unknown): string => errorText(error);

/** --errors, or ETCDCTL_ERRORS; looked for in the words themselves when they could not be read as flags. */
function errorsFormat(io: Io, flags: FlagSet | undefined): string {
  const given = flags?.changed("errors") ? flags.string("errors") : undefined;
  if (given !== undefined) return given;
  const at = io.argv.findIndex((word) => word === "--errors" || word.startsWith("--errors="));
  const word = at < 0 ? undefined : io.argv[at];
  if (word === "--errors") return io.argv[at + 1] ?? "text";
  return word?.slice("--errors=".length) ?? io.env.ETCDCTL_ERRORS ?? "text";
}

function isConnectionError(error: unknown): boolean {
  const code = rpcCodeOf(error);
  return code === DEADLINE_EXCEEDED || code === UNAVAILABLE;
}

async function findings({ target }: Trace) {
  if (!target) return [];
  const [{ diagnose }, { Maintenance }] = await Promise.all([import("../diagnose.ts"), import("@etcd-ts/client/wire")]);
  const hasLeader = async (endpoint: string): Promise<boolean> => {
    if (!target.client) return true;
    const { leader } = await target.client.call(Maintenance.methods.status, {}, { endpoint, timeoutMs: 1_000 });
    return leader !== 0n;
  };
  return Promise.all(target.endpoints.map((endpoint) => diagnose(endpoint.trim(), { tls: target.tls, hasLeader })));
}

function suggestFlag(io: Io, path: CommandPath, message: string): void {
  const typed = /^unknown flag: --(.+)$/.exec(message)?.[1];
  if (typed === undefined) return;
  const near = [...localFlags(path), ...inheritedFlags(path)]
    .map(({ name }) => name)
    .filter((name) => editDistance(name, typed) <= 2 || name.startsWith(typed));
  if (near.length > 0) io.err.write(`Did you mean ${near.map((name) => `--${name}`).join(" or ")}?\n`);
}
