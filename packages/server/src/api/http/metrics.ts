/**
 * What `/metrics` shows. Hot paths only add to plain numbers; prom-client is asked for text when somebody scrapes, and
 * is not loaded before.
 */
import { readdirSync, readFileSync } from "node:fs";
import type { Registry } from "prom-client";
import type { EtcdServer } from "../../etcdserver/index.ts";
import { hexId } from "../../lib/bytes.ts";
import { ETCD_VERSION } from "../../lib/version.ts";
import {
  type CallContext,
  type CallHooks,
  codeName,
  type MethodDescriptor,
  type ServiceRegistration,
} from "../../rpc/index.ts";

const GRPC_CODES = 17;
const HANDLING_BUCKETS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];

const typeNames = {
  unary: "unary",
  serverStream: "server_stream",
  clientStream: "client_stream",
  bidi: "bidi_stream",
} as const;

interface MethodCounts {
  readonly labels: { readonly grpc_method: string; readonly grpc_service: string; readonly grpc_type: string };
  started: number;
  received: number;
  sent: number;
  readonly handled: number[];
  readonly handlingBuckets: number[];
  handlingCount: number;
  handlingSum: number;
}

function countsOf(method: Pick<MethodDescriptor, "path" | "kind">): MethodCounts {
  const [, service = "", name = ""] = method.path.split("/");
  return {
    labels: { grpc_method: name, grpc_service: service, grpc_type: typeNames[method.kind] },
    started: 0,
    received: 0,
    sent: 0,
    handled: new Array<number>(GRPC_CODES).fill(0),
    handlingBuckets: new Array<number>(HANDLING_BUCKETS.length).fill(0),
    handlingCount: 0,
    handlingSum: 0,
  };
}

/** Services whose series are there from the start; those of Lock and Election come with their first call. */
const LAZY_SERVICES: ReadonlySet<string> = new Set(["v3lockpb.Lock", "v3electionpb.Election"]);

export class ServerMetrics {
  readonly #methods = new Map<string, MethodCounts>();
  readonly #starts = new WeakMap<CallContext, number>();
  readonly #isExtensive: boolean;
  readonly #nowMs: () => number;
  readonly #clientRequests = new Map<string, { type: string; version: string; count: number }>();
  readonly #checks = new Map<string, { type: string; name: string; isOk: boolean; success: number; error: number }>();
  #receivedBytes = 0;
  #sentBytes = 0;
  healthSuccess = 0;
  healthFailures = 0;
  leaderChanges = 0;
  #scrapes = 0;

  /** `nowMs` is a monotonic clock. */
  constructor(nowMs: () => number, isExtensive: boolean) {
    this.#nowMs = nowMs;
    this.#isExtensive = isExtensive;
  }

  addServices(services: readonly ServiceRegistration[]): void {
    for (const { service } of services) {
      if (LAZY_SERVICES.has(service.typeName)) continue;
      for (const method of Object.values(service.methods)) this.#methods.set(method.path, countsOf(method));
    }
  }

  #counts(call: CallContext): MethodCounts {
    let counts = this.#methods.get(call.path);
    if (!counts) {
      counts = countsOf(call);
      this.#methods.set(call.path, counts);
    }
    return counts;
  }

  /** Counts a call that a client made, by the version that the client says it has. */
  clientRequest(call: CallContext): void {
    const type = call.kind === "unary" ? "unary" : "stream";
    const version = call.metadata.get("client-api-version") ?? "unknown";
    const key = `${type} ${version}`;
    const found = this.#clientRequests.get(key);
    if (found) found.count++;
    // Clients choose this text: do not let them fill the memory with it.
    else if (this.#clientRequests.size < 100) this.#clientRequests.set(key, { type, version, count: 1 });
  }

  readonly hooks: Required<Pick<CallHooks, "started" | "received" | "sent" | "ended">> = {
    started: (call) => {
      this.#counts(call).started++;
      if (this.#isExtensive) this.#starts.set(call, this.#nowMs());
    },
    received: (call, byteLength) => {
      this.#receivedBytes += byteLength;
      this.#counts(call).received++;
    },
    sent: (call, byteLength) => {
      this.#sentBytes += byteLength;
      this.#counts(call).sent++;
    },
    ended: (call, error) => {
      const counts = this.#counts(call);
      const code = error?.code ?? 0;
      counts.handled[code] = (counts.handled[code] ?? 0) + 1;
      const start = this.#isExtensive ? this.#starts.get(call) : undefined;
      if (start === undefined) return;
      const seconds = (this.#nowMs() - start) / 1000;
      counts.handlingCount++;
      counts.handlingSum += seconds;
      HANDLING_BUCKETS.forEach((bound, i) => {
        if (seconds <= bound) counts.handlingBuckets[i] = (counts.handlingBuckets[i] ?? 0) + 1;
      });
    },
  };

  healthCheck(type: string, name: string, isOk: boolean): void {
    const key = `${type} ${name}`;
    let check = this.#checks.get(key);
    if (!check) {
      check = { type, name, isOk, success: 0, error: 0 };
      this.#checks.set(key, check);
    }
    check.isOk = isOk;
    if (isOk) check.success++;
    else check.error++;
  }

  /** The text of a scrape. `registry` holds what the other rooms keep. */
  async render(server: EtcdServer | undefined, others?: Registry): Promise<{ text: string; contentType: string }> {
    const { Registry, Counter, Gauge, Histogram } = await import("prom-client");
    this.#scrapes++;
    const registry = new Registry();
    const registers = [registry];
    const gauge = (name: string, help: string, value: number) =>
      new Gauge({ name, help, registers }).set(Number.isFinite(value) ? value : 0);
    const counter = (name: string, help: string, value: number) => new Counter({ name, help, registers }).inc(value);

    const labelNames = ["grpc_method", "grpc_service", "grpc_type"] as const;
    const started = new Counter({
      name: "grpc_server_started_total",
      help: "Total number of RPCs started on the server.",
      labelNames,
      registers,
    });
    const handled = new Counter({
      name: "grpc_server_handled_total",
      help: "Total number of RPCs completed on the server, regardless of success or failure.",
      labelNames: ["grpc_code", ...labelNames],
      registers,
    });
    const received = new Counter({
      name: "grpc_server_msg_received_total",
      help: "Total number of RPC stream messages received on the server.",
      labelNames,
      registers,
    });
    const sent = new Counter({
      name: "grpc_server_msg_sent_total",
      help: "Total number of gRPC stream messages sent by the server.",
      labelNames,
      registers,
    });
    for (const counts of this.#methods.values()) {
      started.inc(counts.labels, counts.started);
      received.inc(counts.labels, counts.received);
      sent.inc(counts.labels, counts.sent);
      counts.handled.forEach((count, code) => {
        handled.inc({ grpc_code: codeName(code), ...counts.labels }, count);
      });
    }
    counter(
      "etcd_network_client_grpc_received_bytes_total",
      "The total number of bytes received from grpc clients.",
      this.#receivedBytes,
    );
    counter(
      "etcd_network_client_grpc_sent_bytes_total",
      "The total number of bytes sent to grpc clients.",
      this.#sentBytes,
    );
    counter("etcd_server_health_success", "The total number of successful health checks", this.healthSuccess);
    counter("etcd_server_health_failures", "The total number of failed health checks", this.healthFailures);
    const clientRequests = new Counter({
      name: "etcd_server_client_requests_total",
      help: "The total number of client requests per client version.",
      labelNames: ["type", "client_api_version"],
      registers,
    });
    for (const { type, version, count } of this.#clientRequests.values()) {
      clientRequests.inc({ type, client_api_version: version }, count);
    }
    const checkGauge = new Gauge({
      name: "etcd_server_healthcheck",
      help: "The result of each kind of healthcheck.",
      labelNames: ["type", "name"],
      registers,
    });
    const checkCounter = new Counter({
      name: "etcd_server_healthchecks_total",
      help: "The total number of each kind of healthcheck.",
      labelNames: ["type", "name", "status"],
      registers,
    });
    for (const { type, name, isOk, success, error } of this.#checks.values()) {
      checkGauge.set({ type, name }, isOk ? 1 : 0);
      if (success > 0) checkCounter.inc({ type, name, status: "success" }, success);
      if (error > 0) checkCounter.inc({ type, name, status: "error" }, error);
    }
    new Gauge({
      name: "etcd_server_version",
      help: "Which version is running. 1 for 'server_version' label with current version.",
      labelNames: ["server_version"],
      registers,
    }).set({ server_version: ETCD_VERSION }, 1);
    counter("etcd_server_leader_changes_seen_total", "The number of leader changes seen.", this.leaderChanges);
    if (server) this.#server(server, gauge, Gauge, registers);
    processGauges(gauge, counter);
    counterOfScrapes(Counter, registers, this.#scrapes);
    let text = await registry.metrics();
    if (this.#isExtensive) text += `\n${this.#handlingText()}`;
    void Histogram;
    if (others) text += `\n${await others.metrics()}`;
    return { text: `${text.trimEnd()}\n`, contentType: registry.contentType };
  }

  #server(
    server: EtcdServer,
    gauge: (name: string, help: string, value: number) => void,
    Gauge: typeof import("prom-client").Gauge,
    registers: Registry[],
  ): void {
    const view = server.raftView();
    gauge(
      "etcd_server_has_leader",
      "Whether or not a leader exists. 1 is existence, 0 is not.",
      view.leaderId === 0n ? 0 : 1,
    );
    gauge(
      "etcd_server_is_leader",
      "Whether or not this member is a leader. 1 if is, 0 otherwise.",
      view.isLeader ? 1 : 0,
    );
    gauge(
      "etcd_server_is_learner",
      "Whether or not this member is a learner. 1 if is, 0 otherwise.",
      view.isLearner ? 1 : 0,
    );
    gauge(
      "etcd_server_proposals_committed_total",
      "The total number of consensus proposals committed.",
      view.committedIndex,
    );
    gauge("etcd_server_proposals_applied_total", "The total number of consensus proposals applied.", view.appliedIndex);
    new Gauge({
      name: "etcd_server_id",
      help: "Server or member ID in hexadecimal format. 1 for 'server_id' label with current ID.",
      labelNames: ["server_id"],
      registers,
    }).set({ server_id: hexId(server.member.id) }, 1);
    const clusterVersion = server.clusterVersion();
    const versions = new Gauge({
      name: "etcd_cluster_version",
      help: "Which version is running. 1 for 'cluster_version' label with current cluster version",
      labelNames: ["cluster_version"],
      registers,
    });
    if (clusterVersion) versions.set({ cluster_version: clusterVersion.split(".").slice(0, 2).join(".") }, 1);
  }

  #handlingText(): string {
    const name = "grpc_server_handling_seconds";
    const lines = [
      `# HELP ${name} Histogram of response latency (seconds) of gRPC that had been application-level handled by the server.`,
      `# TYPE ${name} histogram`,
    ];
    for (const { labels, handlingBuckets, handlingCount, handlingSum } of this.#methods.values()) {
      if (handlingCount === 0) continue;
      const common = `grpc_method="${labels.grpc_method}",grpc_service="${labels.grpc_service}",grpc_type="${labels.grpc_type}"`;
      HANDLING_BUCKETS.forEach((bound, i) => {
        lines.push(`${name}_bucket{${common},le="${bound}"} ${handlingBuckets[i]}`);
      });
      lines.push(`${name}_bucket{${common},le="+Inf"} ${handlingCount}`);
      lines.push(`${name}_sum{${common}} ${handlingSum}`, `${name}_count{${common}} ${handlingCount}`);
    }
    return lines.join("\n");
  }
}

function counterOfScrapes(Counter: typeof import("prom-client").Counter, registers: Registry[], count: number): void {
  new Counter({
    name: "promhttp_metric_handler_requests_total",
    help: "Total number of scrapes by HTTP status code.",
    labelNames: ["code"],
    registers,
  }).inc({ code: "200" }, count);
}

/** Soft limit and count of open files, from /proc; undefined where there is none. */
export function fileDescriptors(): { readonly used: number; readonly limit: number } | undefined {
  try {
    const limit = /^Max open files\s+(\S+)/m.exec(readFileSync("/proc/self/limits", "utf8"))?.[1];
    return { used: readdirSync("/proc/self/fd").length, limit: limit === "unlimited" ? 2 ** 63 : Number(limit) };
  } catch {
    return undefined;
  }
}

const startedAtSeconds = process.hrtime.bigint();

/** The `process_*` families that Prometheus' own clients have. */
function processGauges(
  gauge: (name: string, help: string, value: number) => void,
  counter: (name: string, help: string, value: number) => void,
): void {
  const usage = process.resourceUsage();
  counter(
    "process_cpu_seconds_total",
    "Total user and system CPU time spent in seconds.",
    (usage.userCPUTime + usage.systemCPUTime) / 1e6,
  );
  gauge("process_resident_memory_bytes", "Resident memory size in bytes.", process.memoryUsage.rss());
  gauge("process_start_time_seconds", "Start time of the process since unix epoch in seconds.", startTimeSeconds());
  const files = fileDescriptors();
  if (files) {
    gauge("process_open_fds", "Number of open file descriptors.", files.used);
    gauge("process_max_fds", "Maximum number of open file descriptors.", files.limit);
    gauge("os_fd_used", "The number of used file descriptors.", files.used);
    gauge("os_fd_limit", "The file descriptor limit.", files.limit);
  }
  try {
    const virtual = /^VmSize:\s+(\d+) kB/m.exec(readFileSync("/proc/self/status", "utf8"))?.[1];
    if (virtual) gauge("process_virtual_memory_bytes", "Virtual memory size in bytes.", Number(virtual) * 1024);
    gauge("process_virtual_memory_max_bytes", "Maximum amount of virtual memory available in bytes.", -1);
  } catch {
    // No /proc here.
  }
}

/** From /proc: boot time and the ticks at which the process began. */
function startTimeSeconds(): number {
  try {
    const boot = Number(/^btime (\d+)/m.exec(readFileSync("/proc/stat", "utf8"))?.[1]);
    const stat = readFileSync("/proc/self/stat", "utf8");
    const fields = stat.substring(stat.lastIndexOf(")") + 2).split(" ");
    return boot + Number(fields[19]) / 100;
  } catch {
    return Number(startedAtSeconds) / 1e9;
  }
}
