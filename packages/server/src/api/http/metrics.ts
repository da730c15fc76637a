/**
 * What `/metrics` shows. Hot paths only add to plain numbers; prom-client turns them into text when somebody scrapes.
 */
import { readdirSync, readFileSync } from "node:fs";
import { codeName } from "@etcd-ts/client/wire";
import type { Metric } from "prom-client";
import type { EtcdServer } from "../../etcdserver/index.ts";
import { hexId } from "../../lib/bytes.ts";
import { counter, type Family, gauge, LabelledHistograms } from "../../lib/metrics.ts";
import { ETCD_VERSION } from "../../lib/version.ts";
import type { CallContext, CallHooks, MethodDescriptor, ServiceRegistration } from "../../rpc/index.ts";

const GRPC_CODES = 17;
const HANDLING_BOUNDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];
/** Clients choose the text of their version: do not let them fill the memory with it. */
const CLIENT_VERSIONS_MAX = 100;

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
  /** By gRPC code. */
  readonly handled: number[];
}

function countsOf(method: Pick<MethodDescriptor, "path" | "kind">): MethodCounts {
  const [, service = "", name = ""] = method.path.split("/");
  return {
    labels: { grpc_method: name, grpc_service: service, grpc_type: typeNames[method.kind] },
    started: 0,
    received: 0,
    sent: 0,
    handled: new Array<number>(GRPC_CODES).fill(0),
  };
}

/** Services whose series come with their first call; those of the others are there from the start. */
const LAZY_SERVICES: ReadonlySet<string> = new Set(["v3lockpb.Lock", "v3electionpb.Election"]);

interface CheckCounts {
  readonly labels: { readonly type: string; readonly name: string };
  isOk: boolean;
  success: number;
  error: number;
}

export class ServerMetrics {
  readonly #methods = new Map<string, MethodCounts>();
  readonly #starts = new WeakMap<CallContext, number>();
  readonly #handling = new LabelledHistograms(HANDLING_BOUNDS);
  readonly #isExtensive: boolean;
  readonly #nowMs: () => number;
  /** By the version that clients say they have. */
  readonly #clientRequests = new Map<string, { unary: number; stream: number }>();
  readonly #checks = new Map<string, CheckCounts>();
  readonly #others: (() => readonly Family[])[] = [];
  #receivedBytes = 0;
  #sentBytes = 0;
  healthSuccess = 0;
  healthFailures = 0;
  #scrapes = 0;

  /** `nowMs` is a monotonic clock. */
  constructor(nowMs: () => number, isExtensive: boolean) {
    this.#nowMs = nowMs;
    this.#isExtensive = isExtensive;
  }

  /** Families that are kept elsewhere; asked at every scrape. */
  addFamilies(families: () => readonly Family[]): void {
    this.#others.push(families);
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
    const version = call.metadata.get("client-api-version") ?? "unknown";
    let counts = this.#clientRequests.get(version);
    if (!counts) {
      if (this.#clientRequests.size >= CLIENT_VERSIONS_MAX) return;
      counts = { unary: 0, stream: 0 };
      this.#clientRequests.set(version, counts);
    }
    if (call.kind === "unary") counts.unary++;
    else counts.stream++;
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
      if (start !== undefined) this.#handling.observe(counts.labels, (this.#nowMs() - start) / 1000);
    },
  };

  healthCheck(type: string, name: string, isOk: boolean): void {
    const key = `${type} ${name}`;
    let check = this.#checks.get(key);
    if (!check) {
      check = { labels: { type, name }, isOk, success: 0, error: 0 };
      this.#checks.set(key, check);
    }
    check.isOk = isOk;
    if (isOk) check.success++;
    else check.error++;
  }

  /** The text of a scrape. */
  async render(server: EtcdServer | undefined): Promise<{ text: string; contentType: string }> {
    const { Registry } = await import("prom-client");
    this.#scrapes++;
    const registry = new Registry();
    const families = [
      ...this.#calls(),
      ...this.#health(),
      ...(server ? serverFamilies(server) : []),
      ...processFamilies(),
      // This one.
      gauge("promhttp_metric_handler_requests_in_flight", "Current number of scrapes being served.", 1),
      {
        name: "promhttp_metric_handler_requests_total",
        help: "Total number of scrapes by HTTP status code.",
        type: "counter" as const,
        samples: [{ labels: { code: "200" }, value: this.#scrapes }],
      },
      ...this.#others.flatMap((others) => others()),
    ];
    // As etcd: a family with labels shows up once it has a label set.
    for (const family of families) if (family.samples.length > 0) registry.registerMetric(asMetric(family));
    return { text: await registry.metrics(), contentType: registry.contentType };
  }

  #calls(): Family[] {
    const methods = [...this.#methods.values()];
    const perMethod = (name: string, help: string, value: (counts: MethodCounts) => number): Family => ({
      name,
      help,
      type: "counter",
      samples: methods.map((counts) => ({ labels: counts.labels, value: value(counts) })),
    });
    const families: Family[] = [
      perMethod("grpc_server_started_total", "Total number of RPCs started on the server.", ({ started }) => started),
      {
        name: "grpc_server_handled_total",
        help: "Total number of RPCs completed on the server, regardless of success or failure.",
        type: "counter",
        samples: methods.flatMap(({ labels, handled }) =>
          handled.map((value, code) => ({ labels: { grpc_code: codeName(code), ...labels }, value })),
        ),
      },
      perMethod(
        "grpc_server_msg_received_total",
        "Total number of RPC stream messages received on the server.",
        ({ received }) => received,
      ),
      perMethod(
        "grpc_server_msg_sent_total",
        "Total number of gRPC stream messages sent by the server.",
        ({ sent }) => sent,
      ),
      counter(
        "etcd_network_client_grpc_received_bytes_total",
        "The total number of bytes received from grpc clients.",
        this.#receivedBytes,
      ),
      counter(
        "etcd_network_client_grpc_sent_bytes_total",
        "The total number of bytes sent to grpc clients.",
        this.#sentBytes,
      ),
      {
        name: "etcd_server_client_requests_total",
        help: "The total number of client requests per client version.",
        type: "counter",
        samples: [...this.#clientRequests].flatMap(([client_api_version, counts]) =>
          (["unary", "stream"] as const)
            .filter((type) => counts[type] > 0)
            .map((type) => ({ labels: { type, client_api_version }, value: counts[type] })),
        ),
      },
    ];
    if (this.#isExtensive) {
      families.push(
        this.#handling.family(
          "grpc_server_handling_seconds",
          "Histogram of response latency (seconds) of gRPC that had been application-level handled by the server.",
        ),
      );
    }
    return families;
  }

  #health(): Family[] {
    const checks = [...this.#checks.values()];
    return [
      counter("etcd_server_health_success", "The total number of successful health checks", this.healthSuccess),
      counter("etcd_server_health_failures", "The total number of failed health checks", this.healthFailures),
      {
        name: "etcd_server_healthcheck",
        help: "The result of each kind of healthcheck.",
        type: "gauge",
        samples: checks.map(({ labels, isOk }) => ({ labels, value: isOk ? 1 : 0 })),
      },
      {
        name: "etcd_server_healthchecks_total",
        help: "The total number of each kind of healthcheck.",
        type: "counter",
        samples: checks.flatMap(({ labels, success, error }) =>
          [
            { labels: { ...labels, status: "success" }, value: success },
            { labels: { ...labels, status: "error" }, value: error },
          ].filter(({ value }) => value > 0),
        ),
      },
    ];
  }
}

/** A metric of prom-client whose numbers are kept by us: its registry asks for nothing but this. */
function asMetric({ name, help, type, samples }: Family): Metric {
  const values = samples.map(({ suffix, labels, value }) => ({
    metricName: suffix === undefined ? name : name + suffix,
    labels: labels ?? {},
    value,
  }));
  const metric = { name, help, type, get: async () => ({ name, help, type, values, aggregator: "sum" }) };
  return metric as unknown as Metric;
}

function labelled(name: string, help: string, label: string, text: string): Family {
  return { name, help, type: "gauge", samples: [{ labels: { [label]: text }, value: 1 }] };
}

function serverFamilies(server: EtcdServer): Family[] {
  const view = server.raftView();
  const yes = (isSo: boolean) => (isSo ? 1 : 0);
  const families = [
    labelled(
      "etcd_server_version",
      "Which version is running. 1 for 'server_version' label with current version.",
      "server_version",
      ETCD_VERSION,
    ),
    labelled(
      "etcd_server_id",
      "Server or member ID in hexadecimal format. 1 for 'server_id' label with current ID.",
      "server_id",
      hexId(server.member.id),
    ),
    gauge(
      "etcd_server_has_leader",
      "Whether or not a leader exists. 1 is existence, 0 is not.",
      yes(view.leaderId !== 0n),
    ),
    gauge("etcd_server_is_leader", "Whether or not this member is a leader. 1 if is, 0 otherwise.", yes(view.isLeader)),
    gauge(
      "etcd_server_is_learner",
      "Whether or not this member is a learner. 1 if is, 0 otherwise.",
      yes(view.isLearner),
    ),
    gauge(
      "etcd_server_proposals_committed_total",
      "The total number of consensus proposals committed.",
      view.committedIndex,
    ),
    gauge("etcd_debugging_auth_revision", "The current revision of auth store.", server.authRevision()),
    gauge("etcd_server_proposals_applied_total", "The total number of consensus proposals applied.", view.appliedIndex),
  ];
  const clusterVersion = server.clusterVersion();
  if (clusterVersion) {
    families.push(
      labelled(
        "etcd_cluster_version",
        "Which version is running. 1 for 'cluster_version' label with current cluster version",
        "cluster_version",
        clusterVersion.split(".").slice(0, 2).join("."),
      ),
    );
  }
  return families;
}

/** Soft limit and count of open files, from /proc; undefined where there is none. */
export function fileDescriptors():
  | { readonly used: number; readonly limit: number; readonly addressSpace: number }
  | undefined {
  try {
    const limits = readFileSync("/proc/self/limits", "utf8");
    const limitOf = (name: string, unlimited: number) => {
      const limit = new RegExp(`^${name}\\s+(\\S+)`, "m").exec(limits)?.[1];
      return limit === "unlimited" ? unlimited : Number(limit);
    };
    return {
      used: readdirSync("/proc/self/fd").length,
      limit: limitOf("Max open files", 2 ** 63),
      addressSpace: limitOf("Max address space", 2 ** 64),
    };
  } catch {
    return undefined;
  }
}

/** The `process_*` families that Prometheus' own clients have. Those that need /proc are left out without it. */
function processFamilies(): Family[] {
  const usage = process.resourceUsage();
  const families = [
    counter(
      "process_cpu_seconds_total",
      "Total user and system CPU time spent in seconds.",
      (usage.userCPUTime + usage.systemCPUTime) / 1e6,
    ),
    gauge("process_resident_memory_bytes", "Resident memory size in bytes.", process.memoryUsage.rss()),
  ];
  const files = fileDescriptors();
  if (files) {
    families.push(
      gauge("process_open_fds", "Number of open file descriptors.", files.used),
      gauge("process_max_fds", "Maximum number of open file descriptors.", files.limit),
      gauge(
        "process_virtual_memory_max_bytes",
        "Maximum amount of virtual memory available in bytes.",
        files.addressSpace,
      ),
      gauge("os_fd_used", "The number of used file descriptors.", files.used),
      gauge("os_fd_limit", "The file descriptor limit.", files.limit),
    );
  }
  try {
    const boot = Number(/^btime (\d+)/m.exec(readFileSync("/proc/stat", "utf8"))?.[1]);
    const stat = readFileSync("/proc/self/stat", "utf8");
    // After the program's name, which may hold blanks: field 20 is the start in ticks since boot, 21 the memory.
    const fields = stat.substring(stat.lastIndexOf(")") + 2).split(" ");
    families.push(
      gauge(
        "process_start_time_seconds",
        "Start time of the process since unix epoch in seconds.",
        boot + Number(fields[19]) / 100,
      ),
      gauge("process_virtual_memory_bytes", "Virtual memory size in bytes.", Number(fields[20])),
    );
  } catch {
    // No /proc here.
  }
  return families;
}
