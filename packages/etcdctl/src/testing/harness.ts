// Runs command lines in tests: the real flags, commands and printers, a world of strings, and a client whose answers
// the test gives.
import type { MethodOf, WatchInit, WatchOptions } from "@etcd-ts/client";
import type { WatchResponse } from "@etcd-ts/client/wire";
import type { FlagSet } from "../cli/flags.ts";
import { makeContext, type Trace } from "../cli/make-context.ts";
import { runCli } from "../cli/run.ts";
import type { CommandContext, Connected, CtlClient } from "../context.ts";
import { fromBytes, toBytes } from "../go/bytes.ts";
import type { Child, ChildEnd, Io } from "../io.ts";

type Answer = (request: never, options: { endpoint?: string | undefined }) => unknown;

/** Answers by the name of the method (`Range`, `Put`, ...); a function may throw. */
export type Answers = Readonly<Record<string, Answer>>;

export interface Recorded {
  readonly method: string;
  readonly request: Readonly<Record<string, unknown>>;
  readonly endpoint?: string | undefined;
}

export interface FakeOptions {
  readonly answers?: Answers;
  /** What each watch hands out. */
  readonly watch?: (request: WatchInit) => AsyncIterable<WatchResponse> | Iterable<WatchResponse>;
  /** What a server stream hands out. */
  readonly stream?: (method: string) => Iterable<unknown>;
  /** Answers of keep-alives. */
  readonly keepAlive?: (id: bigint) => AsyncIterable<unknown> | Iterable<unknown>;
  readonly stdin?: string | Uint8Array;
  readonly env?: Readonly<Record<string, string>>;
  readonly isTerminal?: boolean;
  readonly child?: (child: Child) => ChildEnd;
  /** Aborted when the test "sends" a signal. */
  readonly signal?: AbortSignal;
}

export interface Outcome {
  readonly exit: number;
  readonly out: string;
  readonly err: string;
  readonly calls: readonly Recorded[];
  readonly children: readonly Child[];
}

/** `etcdctl` with these words. */
export async function etcdctl(words: readonly string[], options: FakeOptions = {}): Promise<Outcome> {
  const calls: Recorded[] = [];
  const children: Child[] = [];
  const out: Uint8Array[] = [];
  const err: Uint8Array[] = [];
  const io = fakeIo(words, options, out, err, children);
  const client = fakeClient(options, calls);
  const contextOf = (flags: FlagSet, given: Io, trace?: Trace): CommandContext => {
    const real = makeContext(flags, given, trace);
    const connect = async (): Promise<Connected<CtlClient>> => {
      await real.prepare();
      if (trace) trace.step = "call";
      const endpoints = flags.list("endpoints");
      return {
        client: Object.assign(Object.create(client) as CtlClient, { endpoints }),
        printer: await real.printer(),
        timeoutMs: flags.milliseconds("command-timeout"),
        tls: undefined,
        [Symbol.asyncDispose]: () => Promise.resolve(),
      };
    };
    return { ...real, connect, connectFully: connect, connectTo: () => Promise.resolve(client) };
  };
  const exit = await runCli(io, contextOf);
  return { exit, out: text(out), err: text(err), calls, children };
}

const text = (pieces: readonly Uint8Array[]): string => fromBytes(Buffer.concat(pieces));

function fakeIo(
  words: readonly string[],
  options: FakeOptions,
  out: Uint8Array[],
  err: Uint8Array[],
  children: Child[],
): Io {
  const isTerminal = options.isTerminal ?? false;
  const sink = (pieces: Uint8Array[]) => ({
    isTerminal,
    write: (piece: string | Uint8Array) => void pieces.push(typeof piece === "string" ? toBytes(piece) : piece),
  });
  let left: Uint8Array =
    typeof options.stdin === "string" ? toBytes(options.stdin) : (options.stdin ?? new Uint8Array());
  const takeLine = (): string | undefined => {
    const end = left.indexOf(10);
    if (end < 0) return undefined;
    const line = fromBytes(left.subarray(0, end));
    left = left.subarray(end + 1);
    return line;
  };
  let clock = 0;
  return {
    argv: words,
    env: options.env ?? {},
    out: sink(out),
    err: sink(err),
    input: {
      isTerminal,
      readAll: () => Promise.resolve(left),
      async *lines() {
        for (let line = takeLine(); line !== undefined; line = takeLine()) yield line;
      },
      readLine() {
        const line = takeLine() ?? fromBytes(left);
        return Promise.resolve(line);
      },
    },
    sibling: (name) => [`/our/${name}`],
    run(child) {
      children.push(child);
      return Promise.resolve(options.child?.(child) ?? { kind: "exited", code: 0 });
    },
    catchSignals: () => options.signal ?? new AbortController().signal,
    now: () => (clock += 1.5),
    timestamp: () => "2026-01-02T03:04:05.123456Z",
  };
}

function fakeClient(options: FakeOptions, calls: Recorded[]): CtlClient {
  const call = async (
    method: MethodOf<unknown, unknown> & { name?: string },
    request: unknown,
    callOptions: { endpoint?: string } = {},
  ): Promise<unknown> => {
    const name = method.path.slice(method.path.lastIndexOf("/") + 1);
    calls.push({
      method: name,
      request: request as Recorded["request"],
      ...(callOptions.endpoint === undefined ? {} : { endpoint: callOptions.endpoint }),
    });
    const answer = options.answers?.[name];
    if (!answer) throw new Error(`the test has no answer for ${name}`);
    const response = await answer(request as never, callOptions);
    // Through the codec, so that every field is there as after a real call.
    const codec = method.response as { encode?(value: unknown): Uint8Array; decode(bytes: Uint8Array): unknown };
    return codec.encode ? codec.decode(codec.encode(response)) : response;
  };
  return {
    endpoints: [],
    call,
    async *serverStream(method: MethodOf<unknown, unknown>) {
      yield* options.stream?.(method.path.slice(method.path.lastIndexOf("/") + 1)) ?? [];
    },
    watch(request: WatchInit, watchOptions: WatchOptions = {}) {
      calls.push({ method: "Watch", request: request as unknown as Recorded["request"] });
      return {
        requestProgress() {
          calls.push({ method: "Progress", request: {} });
        },
        async *[Symbol.asyncIterator]() {
          if (watchOptions.createdNotify) yield watchResponse({ created: true });
          yield* options.watch?.(request) ?? [];
        },
      };
    },
    lease: {
      async keepAliveOnce(id: bigint) {
        for await (const response of options.keepAlive?.(id) ?? []) return response;
        throw Object.assign(new Error("etcdserver: requested lease not found"), { name: "EtcdError" });
      },
      async *keepAlive(id: bigint, { signal }: { signal?: AbortSignal } = {}) {
        yield* options.keepAlive?.(id) ?? [];
        if (!options.keepAlive && signal) {
          await new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
        }
      },
    },
    [Symbol.asyncDispose]: () => Promise.resolve(),
  } as unknown as CtlClient;
}

/** A watch response with the usual header. */
export function watchResponse(fields: Partial<WatchResponse>): WatchResponse {
  return {
    header: header(7),
    watchId: 0n,
    created: false,
    canceled: false,
    compactRevision: 0,
    cancelReason: "",
    fragment: false,
    events: [],
    ...fields,
  };
}

/** A response header as one member of a test cluster gives it. */
export const header = (revision: number) => ({
  clusterId: 14841639068965178418n,
  memberId: 10276657743932975437n,
  revision,
  raftTerm: 2,
});

export const bytes = (value: string): Uint8Array => toBytes(value);

/** A key as stored. */
export const kv = (key: string, value: string, revision = 2) => ({
  key: bytes(key),
  value: bytes(value),
  createRevision: revision,
  modRevision: revision,
  version: 1,
  lease: 0n,
});

/** etcd's error with this text, as the client throws it. */
export function etcdError(message: string, kind = ""): Error {
  return Object.assign(new Error(message), { name: "EtcdError", kind, code: 9 });
}

/** A status that is none of etcd's own, as the client throws it. */
export function rpcError(code: number, details: string): Error {
  return Object.assign(new Error(details), { name: "RpcError", code, details });
}
