// watch: from the command line, or -i from lines of standard input; with a command run for each event if one is given.
import type { Init, WatchCreateRequest, WatchResponse } from "@etcd-ts/client/wire";
import { FlagError, FlagSet } from "../cli/flags.ts";
import { localFlags } from "../cli/command.ts";
import { root } from "../cli/tree.ts";
import type { CommandContext, Connected, CtlClient } from "../context.ts";
import { errorText } from "../errors.ts";
import { badArgs, BAD_ARGS, ERROR, ExitError, exitSilently, INTERRUPTED, INVALID_INPUT } from "../exit.ts";
import { quote, quoteList } from "../go/quote.ts";
import { splitWords } from "../go/words.ts";
import { type ChildEnd, type Io, writeLog } from "../io.ts";

import { enumName, eventNames } from "../print/answers.ts";
import { keyRange } from "./requests.ts";

/** What one watch is asked for, by words. */
export interface WatchWords {
  /** KEY and perhaps RANGE_END. */
  readonly keys: readonly string[];
  /** The command to run for each event; empty for none. */
  readonly command: readonly string[];
}

const NUMBER = "bad number of arguments";
const CONFLICT = `${NUMBER} (found conflicting environment key)`;
const SEPARATOR = `${NUMBER} (found separator --, but no commands)`;

/** `watch KEY [RANGE_END] [-- COMMAND]` */
export async function runWatch(context: CommandContext, args: readonly string[]): Promise<void> {
  const { flags, io } = context;
  const environment = keysFromEnvironment(io.env);
  if (flags.bool("interactive")) return runInteractive(context, environment);
  const words = watchWords(io.argv, args, environment);
  await using connected = await context.connectFully();
  await follow(context, connected, createRequest(flags, words.keys), words.command);
  throw new ExitError(INTERRUPTED, "watch is canceled by the server");
}

/** ETCDCTL_WATCH_KEY and ETCDCTL_WATCH_RANGE_END. @throws ExitError when only the end is there */
function keysFromEnvironment(env: Readonly<Record<string, string | undefined>>): readonly string[] {
  const key = env.ETCDCTL_WATCH_KEY ?? "";
  const end = env.ETCDCTL_WATCH_RANGE_END ?? "";
  if (key === "" && end !== "") {
    throw badArgs(`ETCDCTL_WATCH_KEY is empty but got ETCDCTL_WATCH_RANGE_END=${quote(end)}`);
  }
  return key === "" ? [] : end === "" ? [key] : [key, end];
}

/**
 * Divides the words of a command line into keys and a command.
 * @param argv all words, where `--` can still be seen
 * @param args what is neither flag nor `--`
 * @throws ExitError 128
 */
export function watchWords(
  argv: readonly string[],
  args: readonly string[],
  environment: readonly string[],
): WatchWords {
  const start = argv.indexOf("watch");
  const own = start < 0 ? argv : argv.slice(start + 1);
  const separator = own.indexOf("--");
  if (separator < 0) {
    if (own.length === 0 && environment.length === 0) throw badArgs(NUMBER);
    if (args.length > 0 && environment.length > 0) throw badArgs(CONFLICT);
    return { keys: [...environment, ...args], command: [] };
  }
  const command = own.slice(separator + 1);
  if (command.length === 0) throw badArgs(SEPARATOR);
  const keys = args.slice(0, args.length - command.length);
  if (keys.length > 0 && environment.length > 0) throw badArgs(CONFLICT);
  return { keys: [...environment, ...keys], command };
}

/** @throws ExitError 128 */
function createRequest(flags: FlagSet, keys: readonly string[]): Init<WatchCreateRequest> {
  const [key, end] = keys;
  if (key === undefined) throw badArgs(NUMBER);
  const prefix = flags.bool("prefix");
  // More than two words are looked at as one: so the 3.5 tool has it.
  const rangeEnd = keys.length === 2 ? end : undefined;
  if (rangeEnd !== undefined && prefix) throw badArgs("`range_end` and `--prefix` are mutually exclusive");
  return {
    ...keyRange(key, rangeEnd, prefix, false),
    startRevision: flags.number("rev"),
    prevKv: flags.bool("prev-kv"),
    progressNotify: flags.bool("progress-notify"),
  };
}

interface Follower {
  /** Told when the server has the watch. */
  onCreated?(): void;
  /** Handed the way to ask for progress. */
  onOpen?(requestProgress: () => void): void;
}

/** Prints responses until the watch ends. */
async function follow(
  context: CommandContext,
  { client, printer }: Pick<Connected<CtlClient>, "client" | "printer">,
  request: Init<WatchCreateRequest>,
  command: readonly string[],
  follower: Follower = {},
): Promise<void> {
  const { io } = context;
  /** The first revision that was not looked at yet; 0 before the server has said where "now" is. */
  let next = request.startRevision ?? 0;
  const watcher = client.watch(request, {
    requireLeader: true,
    createdNotify: true,
    onReconnect: () => tellResumed(io, next),
  });
  follower.onOpen?.(() => watcher.requestProgress());
  for await (const response of watcher) {
    if (response.created && !response.canceled) {
      if (next === 0) next = (response.header?.revision ?? 0) + 1;
      follower.onCreated?.();
      continue;
    }
    show(context, printer, response, next);
    // A response without events is the server's word that there is nothing more up to its revision.
    if (!response.canceled) {
      const seen = response.events.at(-1)?.kv?.modRevision ?? response.header?.revision ?? 0;
      next = Math.max(next, seen + 1);
    }
    for (const event of command.length > 0 ? response.events : []) {
      const env = {
        ETCD_WATCH_REVISION: String(response.header?.revision ?? 0),
        ETCD_WATCH_EVENT_TYPE: quote(enumName(eventNames, event.type)),
        ETCD_WATCH_KEY: quote(event.kv?.key ?? ""),
        ETCD_WATCH_VALUE: quote(event.kv?.value ?? ""),
      };
      const problem = childProblem(await io.run({ words: command, env }));
      if (problem === undefined) continue;
      io.err.write(`command ${quoteList(command)} error (${problem})\n`);
      throw exitSilently(ERROR, `command ${quoteList(command)} error (${problem})`);
    }
  }
}

/** Nothing was missed: a person is told in words, whoever reads a log in a line of it. */
function tellResumed(io: Io, revision: number): void {
  if (io.err.isTerminal) io.err.write(`watch: the connection was lost; going on from revision ${revision}\n`);
  else writeLog(io, "info", "command/watch.go", "the connection was lost; the watch goes on", { revision }, "client");
}

/** @param next the first revision not seen yet */
function show(context: CommandContext, printer: Connected["printer"], response: WatchResponse, next: number): void {
  const { io } = context;
  const { header, events, canceled, created, compactRevision } = response;
  if (canceled) {
    io.err.write(`watch was canceled (${cancelText(response)})\n`);
    if (compactRevision > 0 && io.err.isTerminal) {
      const last = compactRevision - 1;
      const missed = next === last ? `revision ${last} is` : `revisions ${next} to ${last} are`;
      io.err.write(`watch: ${missed} compacted away and were not seen; go on with --rev=${compactRevision}\n`);
    }
  } else if (events.length === 0 && header && header.revision > 0) {
    // Without a revision it tells of no progress: so 3.5 answers a watch that starts before everything.
    io.out.write(`progress notify: ${header.revision}\n`);
  }
  // A watch that was refused has no answer of its own: the 3.5 tool prints an empty one.
  const isRefused = created && canceled;
  printer.print("watch", {
    header: isRefused ? undefined : header,
    events: isRefused ? undefined : events,
    compactRevision: isRefused ? 0 : compactRevision,
    canceled,
    created: false,
  });
}

function cancelText({ compactRevision, cancelReason }: WatchResponse): string {
  if (compactRevision > 0) return "etcdserver: mvcc: required revision has been compacted";
  return cancelReason === "" ? "etcdserver: mvcc: required revision is a future revision" : cancelReason;
}

/** How a command failed, as Go words it; undefined when it did not. */
export function childProblem(end: ChildEnd): string | undefined {
  switch (end.kind) {
    case "exited":
      return end.code === 0 ? undefined : `exit status ${end.code}`;
    case "killed":
      return `signal: ${signalTexts[end.signal] ?? end.signal}`;
    case "notStarted":
      return end.reason;
  }
}

const signalTexts: Readonly<Record<string, string>> = {
  SIGHUP: "hangup",
  SIGINT: "interrupt",
  SIGQUIT: "quit",
  SIGABRT: "aborted",
  SIGKILL: "killed",
  SIGSEGV: "segmentation fault",
  SIGPIPE: "broken pipe",
  SIGALRM: "alarm clock",
  SIGTERM: "terminated",
};

/** `watch -i`: each line `watch ...` opens another watch, `progress` asks where they stand. */
async function runInteractive(context: CommandContext, environment: readonly string[]): Promise<void> {
  const { io } = context;
  await using connected = await context.connectFully();
  const spec = root.subcommands?.find(({ name }) => name === "watch");
  if (!spec) throw new Error("no watch command");
  const progress: (() => void)[] = [];
  let isOver = false;
  let fail: (error: unknown) => void = () => {};
  const failed = new Promise<never>((_, reject) => {
    fail = reject;
  });
  failed.catch(() => {});
  const open = (request: Init<WatchCreateRequest>, command: readonly string[]): void => {
    let isCreated = false;
    let isWanted = false;
    let ask = (): void => {};
    const following = follow(context, connected, request, command, {
      onCreated() {
        isCreated = true;
        if (isWanted) ask();
        isWanted = false;
      },
      onOpen(requestProgress) {
        ask = requestProgress;
      },
    });
    progress.push(() => {
      if (isCreated) ask();
      else isWanted = true;
    });
    following.catch((error: unknown) => {
      // A failed command ends us; a watch that breaks ends alone.
      if (error instanceof ExitError) fail(error);
      else if (!isOver) io.err.write(`watch was canceled (${errorText(error)})\n`);
    });
  };
  const readLines = async (): Promise<void> => {
    for await (const line of io.input.lines()) {
      const words = splitWords(line);
      if (words === undefined) throw new ExitError(INVALID_INPUT, "invalid syntax");
      const [first, ...rest] = words;
      if (first === undefined) io.err.write(`Invalid command: ${line} (watch and progress supported)\n`);
      else if (first === "progress") for (const request of progress) request();
      else if (first !== "watch") io.err.write(`Invalid command ${line} (only support watch)\n`);
      else if (rest.length === 0 && environment.length === 0) {
        io.err.write(`Invalid command ${line} (command type or key is not provided)\n`);
      } else {
        const flags = new FlagSet(localFlags({ command: spec, parents: [] }).filter(({ name }) => name !== "help"));
        const { keys, command } = interactiveWords(flags, rest, environment);
        let request: Init<WatchCreateRequest>;
        try {
          request = createRequest(flags, keys);
        } catch (error) {
          io.err.write(`Invalid command ${line} (${errorText(error)})\n`);
          continue;
        }
        open(request, command);
      }
    }
    throw new ExitError(INVALID_INPUT, "error reading watch request line: EOF");
  };
  try {
    await Promise.race([readLines(), failed]);
  } finally {
    isOver = true;
  }
}

/** @throws ExitError 128 */
function interactiveWords(flags: FlagSet, words: readonly string[], environment: readonly string[]): WatchWords {
  const separator = words.indexOf("--");
  if (separator >= 0 && separator === words.length - 1) throw badArgs(SEPARATOR);
  try {
    flags.parse(words);
  } catch (error) {
    if (!(error instanceof FlagError)) throw error;
    throw new ExitError(BAD_ARGS, error.message);
  }
  const command = separator < 0 ? [] : words.slice(separator + 1);
  const keys = flags.args.slice(0, flags.args.length - command.length);
  if (separator < 0 && keys.length === 0 && environment.length === 0) throw badArgs(NUMBER);
  if (keys.length > 0 && environment.length > 0) throw badArgs(CONFLICT);
  return { keys: [...environment, ...keys], command };
}
