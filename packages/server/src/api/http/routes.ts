/**
 * HTTP/1 beside gRPC: health, metrics, version, variables. The peer port and the metrics ports serve parts of it.
 * Unknown paths are 404 as from Go's mux; the whitelist of hosts and CORS come before everything else.
 */
import type { IncomingMessage, ServerResponse } from "node:http";
import type { TLSSocket } from "node:tls";
import type { EtcdServer } from "../../etcdserver/index.ts";
import { hexId } from "../../lib/bytes.ts";
import { splitHostPort } from "../../lib/listen-url.ts";
import type { Logger } from "../../lib/log.ts";
import { ETCD_VERSION } from "../../lib/version.ts";
import type { HttpHandler } from "../../rpc/index.ts";
import { type CheckType, checkHealth, healthChecks, runChecks } from "./health.ts";
import { fileDescriptors, type ServerMetrics } from "./metrics.ts";
import { unknownProfile } from "./pprof.ts";

export interface HttpDeps {
  readonly server: EtcdServer;
  readonly metrics: ServerMetrics;
  readonly logger: Logger;
  readonly cors: readonly string[];
  readonly hostWhitelist: readonly string[];
  /** `/v3/...`; undefined when the gateway is off. */
  readonly gateway?: HttpHandler | undefined;
  readonly argv: readonly string[];
  /** `/debug/pprof/...`, by path; undefined when it is off. */
  readonly profiles?: ReadonlyMap<string, Route> | undefined;
}

export type Route = (request: IncomingMessage, response: ServerResponse, url: URL) => void | Promise<void>;

export const TEXT = "text/plain; charset=utf-8";

/** A whole answer, its length told. */
export function answer(
  response: ServerResponse,
  status: number,
  headers: Readonly<Record<string, string>>,
  body: string,
): void {
  response.writeHead(status, { ...headers, "Content-Length": String(Buffer.byteLength(body)) });
  response.end(body);
}

/** As Go's http.Error: plain text, a newline at the end. */
export function httpError(response: ServerResponse, status: number, text: string): void {
  answer(response, status, { "Content-Type": TEXT, "X-Content-Type-Options": "nosniff" }, `${text}\n`);
}

export function notFound(response: ServerResponse, why?: string): void {
  httpError(response, 404, why === undefined ? "404 page not found" : `404 page not found: ${why}`);
}

const NO_V2 = "the v2 API is not served; use gRPC, or JSON under /v3";

/** True when the method is the one allowed; otherwise it has been answered. */
export function allowMethod(request: IncomingMessage, response: ServerResponse, method: string): boolean {
  if (request.method === method) return true;
  response.setHeader("Allow", method);
  httpError(response, 405, "Method Not Allowed");
  return false;
}

export function urlOf(request: IncomingMessage): URL {
  return new URL(request.url ?? "/", "http://localhost");
}

/** Runs a handler that may be asynchronous; a failure is a 500, not the end of the process. */
export function runRoute(
  route: Route,
  request: IncomingMessage,
  response: ServerResponse,
  url: URL,
  logger: Logger,
): void {
  const failed = (error: unknown) => {
    logger.warn("failed to serve an HTTP request", { path: url.pathname, error });
    if (!response.headersSent) httpError(response, 500, "Internal Server Error");
    else response.destroy();
  };
  try {
    const pending = route(request, response, url);
    if (pending instanceof Promise) pending.catch(failed);
  } catch (error) {
    failed(error);
  }
}

export function versionRoute(clusterVersion: () => string | undefined): Route {
  return (request, response) => {
    if (!allowMethod(request, response, "GET")) return;
    answer(
      response,
      200,
      { "Content-Type": "application/json" },
      JSON.stringify({ etcdserver: ETCD_VERSION, etcdcluster: clusterVersion() ?? "not_decided" }),
    );
  };
}

function healthRoute({ server, metrics, logger }: HttpDeps): Route {
  return async (request, response, url) => {
    if (request.method !== "GET") {
      logger.warn("/health error", { "status-code": 405 });
      allowMethod(request, response, "GET");
      return;
    }
    const excluded = new Set(url.searchParams.getAll("exclude").filter((name) => name !== ""));
    const result = await checkHealth({ server, logger }, excluded, url.searchParams.get("serializable") === "true");
    const text = JSON.stringify(result);
    if (result.health === "true") {
      metrics.healthSuccess++;
      answer(response, 200, { "Content-Type": TEXT }, text);
    } else {
      metrics.healthFailures++;
      logger.warn("/health error", { output: text, "status-code": 503 });
      httpError(response, 503, text);
    }
  };
}

function checksRoute({ server, metrics, logger }: HttpDeps, type: CheckType, only: string | undefined): Route {
  const path = only === undefined ? `/${type}` : `/${type}/${only}`;
  return async (request, response, url) => {
    if (request.method !== "GET") {
      logger.warn("Health request error", { path, "status-code": 405 });
      allowMethod(request, response, "GET");
      return;
    }
    const all = Object.keys(healthChecks[type]);
    const excluded = new Set(
      only === undefined ? url.searchParams.getAll("exclude").filter((name) => name !== "") : [],
    );
    const missing = [...excluded].filter((name) => !all.includes(name));
    if (missing.length > 0) {
      logger.warn("some health checks cannot be excluded", {
        "missing-health-checks": missing.map((name) => JSON.stringify(name)).join(","),
      });
    }
    const names = only === undefined ? all.filter((name) => !excluded.has(name)) : [only];
    const outcomes = await runChecks(server, type, names);
    for (const { name, error } of outcomes) metrics.healthCheck(type, name, error === undefined);
    const reason = outcomes
      .map(({ name, error }) => (error ? `[-]${name} failed: ${error.message}\n` : `[+]${name} ok\n`))
      .join("");
    if (outcomes.some(({ error }) => error)) {
      logger.error("Health check error", { path, reason, "status-code": 503 });
      httpError(response, 503, reason);
      return;
    }
    answer(
      response,
      200,
      { "Content-Type": TEXT, "X-Content-Type-Options": "nosniff" },
      `${url.searchParams.has("verbose") ? reason : ""}ok\n`,
    );
  };
}

function metricsRoute({ server, metrics }: HttpDeps): Route {
  return async (_request, response) => {
    const { text, contentType } = await metrics.render(server);
    answer(response, 200, { "Content-Type": contentType }, text);
  };
}

const raftStateNames = {
  follower: "StateFollower",
  preCandidate: "StatePreCandidate",
  candidate: "StateCandidate",
  leader: "StateLeader",
} as const;

const progressStateNames = { probe: "StateProbe", replicate: "StateReplicate", snapshot: "StateSnapshot" } as const;

function varsRoute({ server, argv }: HttpDeps): Route {
  return (request, response) => {
    if (!allowMethod(request, response, "GET")) return;
    const view = server.raftView();
    const status = server.raftStatus();
    const memory = process.memoryUsage();
    const variables: Readonly<Record<string, unknown>> = {
      cmdline: argv,
      file_descriptor_limit: fileDescriptors()?.limit ?? 0,
      // What of Go's names has a meaning here.
      memstats: {
        Alloc: memory.heapUsed,
        Sys: memory.rss,
        HeapAlloc: memory.heapUsed,
        HeapSys: memory.heapTotal,
        External: memory.external,
      },
      "raft.status": {
        id: hexId(status.id),
        term: status.term,
        vote: hexId(status.vote),
        commit: status.commit,
        lead: hexId(status.lead),
        raftState: raftStateNames[status.state],
        applied: view.appliedIndex,
        progress: Object.fromEntries(
          [...status.progress].map(([id, { match, next, state }]) => [
            hexId(id),
            { match, next, state: progressStateNames[state] },
          ]),
        ),
        leadtransferee: hexId(status.leadTransferee),
      },
    };
    const lines = Object.entries(variables).map(([name, value]) => `${JSON.stringify(name)}: ${JSON.stringify(value)}`);
    answer(response, 200, { "Content-Type": "application/json; charset=utf-8" }, `{\n${lines.join(",\n")}\n}\n`);
  };
}

function monitoringRoutes(deps: HttpDeps): Map<string, Route> {
  const routes = new Map<string, Route>([
    ["/health", healthRoute(deps)],
    ["/metrics", metricsRoute(deps)],
  ]);
  for (const type of ["livez", "readyz"] as const) {
    routes.set(`/${type}`, checksRoute(deps, type, undefined));
    for (const name of Object.keys(healthChecks[type])) routes.set(`/${type}/${name}`, checksRoute(deps, type, name));
  }
  return routes;
}

/** What `--listen-metrics-urls` serve. */
export function metricsHandler(deps: HttpDeps): HttpHandler {
  const routes = monitoringRoutes(deps);
  return (request, response) => {
    const url = urlOf(request);
    const route = routes.get(url.pathname);
    if (route) runRoute(route, request, response, url, deps.logger);
    else notFound(response);
  };
}

function rebindingText(host: string): string {
  return [
    "",
    "etcd received your request, but the Host header was unrecognized.",
    "",
    "Either turn on TLS, which admits every HTTPS request, or allow the name:",
    `  etcd --host-whitelist ${JSON.stringify(host)}`,
    "",
    'This guards against "DNS rebinding" (CVE-2018-5702).',
    "",
  ].join("\n");
}

function hostOf(request: IncomingMessage): string {
  const host = request.headers.host ?? "";
  return splitHostPort(host)?.host ?? host;
}

function addCors(response: ServerResponse, origin: string): void {
  response.setHeader("Access-Control-Allow-Methods", "POST, GET, OPTIONS, PUT, DELETE");
  response.setHeader("Access-Control-Allow-Origin", origin);
  response.setHeader("Access-Control-Allow-Headers", "accept, content-type, authorization");
}

/** What the client ports serve over HTTP/1. */
export function clientHandler(deps: HttpDeps): HttpHandler {
  const { server, logger, gateway } = deps;
  const routes = monitoringRoutes(deps);
  routes.set(
    "/version",
    versionRoute(() => server.clusterVersion()),
  );
  routes.set("/debug/vars", varsRoute(deps));
  for (const [path, route] of deps.profiles ?? []) routes.set(path, route);
  const hosts = new Set(deps.hostWhitelist.filter((host) => host !== ""));
  const isAnyHost = hosts.size === 0 || hosts.has("*");
  const origins = new Set(deps.cors.filter((origin) => origin !== ""));
  const isAnyOrigin = origins.size === 0 || origins.has("*");
  return (request, response) => {
    const isTls = (request.socket as Partial<TLSSocket>).encrypted === true;
    const host = hostOf(request);
    if (!isTls && !isAnyHost && !hosts.has(host)) {
      logger.warn("rejecting HTTP request to prevent DNS rebinding attacks", { host });
      httpError(response, 421, rebindingText(host));
      return;
    }
    const origin = request.headers.origin ?? "";
    if (isAnyOrigin) addCors(response, "*");
    else if (origins.has(origin)) addCors(response, origin);
    if (request.method === "OPTIONS") {
      response.writeHead(200, { "Content-Length": "0" });
      response.end();
      return;
    }
    const url = urlOf(request);
    if (url.pathname.startsWith("/v3beta/")) url.pathname = `/v3/${url.pathname.substring("/v3beta/".length)}`;
    const route = routes.get(url.pathname);
    if (route) runRoute(route, request, response, url, logger);
    else if (url.pathname.startsWith("/v3/") && gateway) gateway(request, response);
    else if (/^\/v2(?:\/|$)/.test(url.pathname)) notFound(response, NO_V2);
    else if (!deps.profiles || !unknownProfile(request, response, url.pathname)) notFound(response);
  };
}
