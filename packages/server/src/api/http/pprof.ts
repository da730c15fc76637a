/**
 * `/debug/pprof`: what the process is busy with, under Go's paths. CPU and heap profiles come from V8 by way of
 * node:inspector and are written in pprof's own format, so that the tools people point at a Go server work here too.
 *
 * | path | content |
 * |---|---|
 * | `profile?seconds=N` | CPU time of the main thread for N seconds (30), one sample a millisecond |
 * | `heap` | V8's heap by the place of allocation, sampled since the server started; buffers are outside of it |
 * | `goroutine` | what the event loop waits for, by kind: Node has no goroutines |
 * | `trace?seconds=N` | trace events of Node and V8 as JSON, for chrome://tracing or Perfetto |
 * | `cmdline`, `symbol` | as Go |
 *
 * Nothing is loaded or sampled unless these paths are served.
 */
import type { IncomingMessage, ServerResponse } from "node:http";
import type { HeapProfiler, Profiler, Session } from "node:inspector";
import type { Clock } from "../../lib/clock.ts";
import { encodeProfile, type ProfileFunction, type ProfileSample } from "./profile-format.ts";
import { answer, httpError, type Route, TEXT } from "./routes.ts";

const PREFIX = "/debug/pprof/";
/** Go's number: one sample for so many bytes allocated. */
const HEAP_SAMPLE_BYTES = 512 * 1024;
const CPU_SAMPLE_MICROSECONDS = 1_000;
const PROFILE_SECONDS = 30;
const TRACE_SECONDS = 1;
/** A profile is held in memory until its time is over. */
const SECONDS_MAX = 600;
/** Trace events, too; with so many bytes of them the trace ends early. Node hands them on some 65,000 at a time. */
const TRACE_BYTES_MAX = 64 * 1024 * 1024;

type Frame = { readonly functionName: string; readonly url: string; readonly lineNumber: number };

function functionOf({ functionName, url, lineNumber }: Frame): ProfileFunction {
  return {
    name: functionName === "" ? "(anonymous)" : functionName,
    file: url.replace(/^file:\/\//, ""),
    line: lineNumber + 1,
  };
}

/** Go drops frames of the runtime that say nothing; V8's root is one of these. */
const HIDDEN = new Set(["(root)", "(idle)"]);

/** Samples of a CPU profile with equal stacks, added up. Time in which nothing ran is left out. */
export function cpuSamples(profile: Profiler.Profile): ProfileSample[] {
  const parents = new Map<number, Profiler.ProfileNode>();
  const nodes = new Map<number, Profiler.ProfileNode>();
  for (const node of profile.nodes) {
    nodes.set(node.id, node);
    for (const child of node.children ?? []) parents.set(child, node);
  }
  const sums = new Map<number, { count: number; nanoseconds: number }>();
  profile.samples?.forEach((id, i) => {
    const sum = sums.get(id) ?? { count: 0, nanoseconds: 0 };
    sum.count++;
    // A sample stands for the time up to the next one.
    sum.nanoseconds += (profile.timeDeltas?.[i + 1] ?? CPU_SAMPLE_MICROSECONDS) * 1000;
    sums.set(id, sum);
  });
  const samples: ProfileSample[] = [];
  for (const [id, { count, nanoseconds }] of sums) {
    const stack: ProfileFunction[] = [];
    const leaf = nodes.get(id);
    if (!leaf || HIDDEN.has(leaf.callFrame.functionName)) continue;
    for (let node: Profiler.ProfileNode | undefined = leaf; node; node = parents.get(node.id)) {
      if (!HIDDEN.has(node.callFrame.functionName)) stack.push(functionOf(node.callFrame));
    }
    samples.push({ stack, values: [count, nanoseconds] });
  }
  return samples;
}

/** What of the heap is alive, by the stack that allocated it. */
export function heapSamples(profile: HeapProfiler.SamplingHeapProfile): ProfileSample[] {
  const samples: ProfileSample[] = [];
  const visit = (node: HeapProfiler.SamplingHeapProfileNode, above: readonly ProfileFunction[]) => {
    const stack = HIDDEN.has(node.callFrame.functionName) ? above : [functionOf(node.callFrame), ...above];
    if (node.selfSize > 0) samples.push({ stack, values: [node.selfSize] });
    for (const child of node.children) visit(child, stack);
  };
  visit(profile.head, []);
  return samples;
}

/** Kinds of what keeps the event loop alive, with their numbers. */
function activeResources(): { readonly kind: string; readonly count: number }[] {
  const counts = new Map<string, number>();
  for (const kind of process.getActiveResourcesInfo()) counts.set(kind, (counts.get(kind) ?? 0) + 1);
  return [...counts].map(([kind, count]) => ({ kind, count })).sort((a, b) => b.count - a.count);
}

/**
 * Waits for the time to be over, or for the caller to have gone: then whatever there is will not be read by anybody. The
 * caller's `end` ends it early, too.
 */
async function pause(
  clock: Clock,
  seconds: number,
  response: ServerResponse,
  end: AbortController = new AbortController(),
): Promise<void> {
  const onClose = () => end.abort();
  response.once("close", onClose);
  try {
    await clock.sleep(seconds * 1000, end.signal);
  } catch {
    // The profile ends early.
  } finally {
    response.off("close", onClose);
  }
}

function secondsOf(url: URL, fallback: number): number {
  const seconds = Number(url.searchParams.get("seconds"));
  return Number.isFinite(seconds) && seconds > 0 ? Math.min(seconds, SECONDS_MAX) : fallback;
}

function attachment(response: ServerResponse, name: string, type: string, body: Buffer): void {
  response.writeHead(200, {
    "Content-Type": type,
    "Content-Disposition": `attachment; filename="${name}"`,
    "X-Content-Type-Options": "nosniff",
    "Content-Length": String(body.length),
  });
  response.end(body);
}

function plain(response: ServerResponse, text: string): void {
  answer(response, 200, { "Content-Type": TEXT, "X-Content-Type-Options": "nosniff" }, text);
}

/** As Go: the tools know by this header that the body is the error. */
function refuse(response: ServerResponse, status: number, text: string): void {
  response.setHeader("X-Go-Pprof", "1");
  httpError(response, status, text);
}

const escaped = (text: string) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll("'", "&#39;");

export interface PprofDeps {
  readonly clock: Clock;
  /** Bytes of events after which a trace ends early. */
  readonly traceBytesMax?: number;
  readonly argv: readonly string[];
}

/** The paths below {@link PREFIX}. Sampling of the heap begins here. */
export function pprofRoutes({ clock, argv, traceBytesMax = TRACE_BYTES_MAX }: PprofDeps): ReadonlyMap<string, Route> {
  let opening: Promise<Session> | undefined;
  const open = () =>
    (opening ??= (async () => {
      const inspector = await import("node:inspector");
      const session = new inspector.Session();
      session.connect();
      await post(session, "HeapProfiler.enable");
      await post(session, "HeapProfiler.startSampling", { samplingInterval: HEAP_SAMPLE_BYTES });
      return session;
    })());
  const post = <T>(session: Session, method: string, params: object = {}): Promise<T> =>
    new Promise((resolve, reject) => {
      session.post(method, params, (error, result) => (error ? reject(error) : resolve(result as T)));
    });
  // A Node without an inspector tells when it is asked.
  open().catch(() => {});
  let isProfiling = false;
  let isTracing = false;

  const profile: Route = async (_request, response, url) => {
    if (isProfiling) return refuse(response, 500, "Could not enable CPU profiling: cpu profiling already in use");
    isProfiling = true;
    try {
      const session = await open();
      await post(session, "Profiler.enable");
      await post(session, "Profiler.setSamplingInterval", { interval: CPU_SAMPLE_MICROSECONDS });
      const startedMs = clock.nowMs();
      await post(session, "Profiler.start");
      await pause(clock, secondsOf(url, PROFILE_SECONDS), response);
      const taken = await post<Profiler.StopReturnType>(session, "Profiler.stop");
      await post(session, "Profiler.disable");
      const body = encodeProfile({
        types: [
          { type: "samples", unit: "count" },
          { type: "cpu", unit: "nanoseconds" },
        ],
        samples: cpuSamples(taken.profile),
        period: CPU_SAMPLE_MICROSECONDS * 1000,
        startedMs,
        durationMs: (taken.profile.endTime - taken.profile.startTime) / 1000,
      });
      attachment(response, "profile", "application/octet-stream", body);
    } finally {
      isProfiling = false;
    }
  };

  const heap: Route = async (_request, response, url) => {
    const session = await open();
    const taken = await post<HeapProfiler.GetSamplingProfileReturnType>(session, "HeapProfiler.getSamplingProfile");
    const samples = heapSamples(taken.profile);
    if (Number(url.searchParams.get("debug")) > 0) {
      const total = samples.reduce((sum, { values }) => sum + (values[0] as number), 0);
      const lines = samples
        .sort((a, b) => (b.values[0] as number) - (a.values[0] as number))
        .map(({ stack, values }) => {
          const frames = stack.map(({ name, file, line }) => `#\t${name}\t${file}:${line}`);
          return [`${values[0]} @`, ...frames, ""].join("\n");
        });
      return plain(response, `heap profile: ${total} bytes @ heap/${HEAP_SAMPLE_BYTES}\n${lines.join("\n")}`);
    }
    const body = encodeProfile({
      types: [{ type: "inuse_space", unit: "bytes" }],
      samples,
      period: HEAP_SAMPLE_BYTES,
      startedMs: clock.nowMs(),
    });
    attachment(response, "heap", "application/octet-stream", body);
  };

  const goroutine: Route = (_request, response, url) => {
    const resources = activeResources();
    if (Number(url.searchParams.get("debug")) > 0) {
      const total = resources.reduce((sum, { count }) => sum + count, 0);
      const lines = resources.map(({ kind, count }) => `${count} @ ${kind}\n`);
      return plain(response, `goroutine profile: total ${total}\n${lines.join("")}`);
    }
    const body = encodeProfile({
      types: [{ type: "goroutine", unit: "count" }],
      samples: resources.map(({ kind, count }) => ({ stack: [{ name: kind, file: "", line: 0 }], values: [count] })),
      period: 1,
      startedMs: clock.nowMs(),
    });
    attachment(response, "goroutine", "application/octet-stream", body);
  };

  const trace: Route = async (_request, response, url) => {
    if (isTracing) return refuse(response, 500, "Could not enable tracing: tracing is already enabled");
    isTracing = true;
    let ended = (): void => {};
    const events: string[] = [];
    let bytes = 0;
    const full = new AbortController();
    const onData = ({ params }: { params: { value: unknown[] } }) => {
      for (const event of params.value) {
        // What is still on its way when the trace has been ended is left out.
        if (bytes >= traceBytesMax) break;
        const text = JSON.stringify(event);
        events.push(text);
        bytes += text.length + 1;
      }
      if (bytes >= traceBytesMax) full.abort();
    };
    let session: Session | undefined;
    try {
      session = await open();
      const complete = new Promise<void>((resolve) => {
        ended = resolve;
      });
      session.on("NodeTracing.tracingComplete", ended);
      session.on("NodeTracing.dataCollected", onData as never);
      const traceConfig = { includedCategories: ["node", "node.async_hooks", "v8"] };
      await post(session, "NodeTracing.start", { traceConfig });
      await pause(clock, secondsOf(url, TRACE_SECONDS), response, full);
      await post(session, "NodeTracing.stop");
      await complete;
      attachment(response, "trace", "application/json", Buffer.from(`{"traceEvents":[${events.join(",")}]}`));
    } finally {
      session?.off("NodeTracing.tracingComplete", ended);
      session?.off("NodeTracing.dataCollected", onData as never);
      isTracing = false;
    }
  };

  const about: Readonly<Record<string, string>> = {
    cmdline: "The command line of this process.",
    goroutine: "What the event loop waits for, by kind.",
    heap: "Living objects of the JavaScript heap, by the place of their allocation.",
    profile: "CPU time of the main thread; ?seconds=N says for how long.",
    symbol: "Always says that there are symbols: profiles carry their names.",
    trace: "Trace events of Node and V8, as JSON; ?seconds=N says for how long.",
  };
  const index: Route = (_request, response) => {
    const count = process.getActiveResourcesInfo().length;
    const rows = Object.entries(about).map(
      ([name, text]) =>
        `<tr><td>${name === "goroutine" ? count : ""}</td><td><a href='${name}${name === "goroutine" || name === "heap" ? "?debug=1" : ""}'>${name}</a></td><td>${escaped(text)}</td></tr>`,
    );
    const page = [
      "<html>",
      "<head>",
      "<title>/debug/pprof/</title>",
      "</head>",
      "<body>",
      "<p>Profiles of this server, in the format of pprof. With debug=1, heap and goroutine are text.</p>",
      "<table>",
      "<thead><td>Count</td><td>Profile</td><td></td></thead>",
      ...rows,
      "</table>",
      "</body>",
      "</html>",
      "",
    ].join("\n");
    answer(response, 200, { "Content-Type": "text/html; charset=utf-8", "X-Content-Type-Options": "nosniff" }, page);
  };

  return new Map<string, Route>([
    [PREFIX, index],
    [`${PREFIX}cmdline`, (_request, response) => plain(response, argv.join("\0"))],
    [`${PREFIX}symbol`, (_request, response) => plain(response, "num_symbols: 1\n")],
    [`${PREFIX}profile`, profile],
    [`${PREFIX}heap`, heap],
    [`${PREFIX}goroutine`, goroutine],
    [`${PREFIX}trace`, trace],
  ]);
}

/** Answers for paths below the prefix that no profile has. */
export function unknownProfile(request: IncomingMessage, response: ServerResponse, path: string): boolean {
  if (path === "/debug/pprof") {
    const link = `<a href="${PREFIX}">Moved Permanently</a>.\n\n`;
    const body = request.method === "GET" ? link : "";
    answer(response, 301, { Location: PREFIX, "Content-Type": "text/html; charset=utf-8" }, body);
    return true;
  }
  if (!path.startsWith(PREFIX)) return false;
  refuse(response, 404, "Unknown profile");
  return true;
}
