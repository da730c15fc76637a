import { createServer, type IncomingHttpHeaders, request, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { AlarmType } from "@etcd-ts/client/wire";
import { afterEach, describe, expect, it } from "vitest";
import type { EtcdServer } from "../../etcdserver/index.ts";
import { silentLogger } from "../../lib/log.ts";
import { ServerMetrics } from "./metrics.ts";
import { clientHandler, type HttpDeps, metricsHandler } from "./routes.ts";

interface State {
  isLeaderless?: boolean;
  isLearner?: boolean;
  alarms?: number[];
  readError?: string;
}

function fakeServer({ isLeaderless = false, isLearner = false, alarms = [], readError }: State): EtcdServer {
  return {
    member: { id: 0x8e9en, clusterId: 1n, name: "default" },
    header: () => ({ clusterId: 1n, memberId: 2n, revision: 1, raftTerm: 2 }),
    raftView: () => ({
      leaderId: isLeaderless ? 0n : 2n,
      term: 2,
      committedIndex: 8,
      appliedIndex: 8,
      isLearner,
      isLeader: true,
    }),
    raftStatus: () => ({
      id: 0x8e9en,
      term: 2,
      vote: 0x8e9en,
      commit: 8,
      lead: 2n,
      state: "leader",
      progress: new Map([[0x8e9en, { match: 8, next: 9, state: "replicate" }]]),
      leadTransferee: 0n,
    }),
    clusterVersion: () => "3.5.0",
    authRevision: () => 1,
    alarms: () => alarms.map((alarm) => ({ memberId: 1n, alarm })),
    linearizableReadNotify: async () => {
      if (readError) throw new Error(readError);
    },
  } as unknown as EtcdServer;
}

const open: Server[] = [];
afterEach(() => {
  for (const server of open.splice(0)) server.close();
});

interface Answer {
  readonly status: number;
  readonly body: string;
  readonly headers: IncomingHttpHeaders;
}

async function ask(
  path: string,
  {
    state = {},
    method = "GET",
    headers = {},
    deps = {},
    isMetrics = false,
  }: {
    state?: State;
    method?: string;
    headers?: Record<string, string>;
    deps?: Partial<HttpDeps>;
    isMetrics?: boolean;
  } = {},
): Promise<Answer> {
  const full: HttpDeps = {
    server: fakeServer(state),
    metrics: new ServerMetrics(() => 0, false),
    logger: silentLogger,
    cors: ["*"],
    hostWhitelist: ["*"],
    argv: ["etcd"],
    ...deps,
  };
  const server = createServer(isMetrics ? metricsHandler(full) : clientHandler(full));
  open.push(server);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  return new Promise((resolve, reject) => {
    const call = request({ port, host: "127.0.0.1", path, method, headers }, (response) => {
      let body = "";
      response.on("data", (chunk) => {
        body += chunk;
      });
      response.on("end", () => resolve({ status: response.statusCode ?? 0, body, headers: response.headers }));
    });
    call.on("error", reject);
    call.end();
  });
}

const brief = ({ status, body }: Answer) => [status, body];

describe("/health", () => {
  it.each<[string, State, number, string]>([
    ["/health", {}, 200, '{"health":"true","reason":""}'],
    ["/health", { alarms: [AlarmType.NoSpace] }, 503, '{"health":"false","reason":"ALARM NOSPACE"}\n'],
    ["/health?exclude=NOSPACE&exclude=x", { alarms: [AlarmType.NoSpace] }, 200, '{"health":"true","reason":""}'],
    ["/health", { isLeaderless: true }, 503, '{"health":"false","reason":"RAFT NO LEADER"}\n'],
    ["/health?serializable=true", { isLeaderless: true, readError: "no" }, 200, '{"health":"true","reason":""}'],
    [
      "/health",
      { readError: "etcdserver: request timed out" },
      503,
      '{"health":"false","reason":"RANGE ERROR:etcdserver: request timed out"}\n',
    ],
  ])("%s %j", async (path, state, status, body) => {
    expect(brief(await ask(path, { state }))).toEqual([status, body]);
  });

  it("takes GET alone", async () => {
    const answer = await ask("/health", { method: "HEAD" });
    expect([answer.status, answer.headers.allow]).toEqual([405, "GET"]);
  });
});

describe("/livez and /readyz", () => {
  it.each<[string, State, number, string]>([
    ["/livez", {}, 200, "ok\n"],
    ["/livez?verbose", {}, 200, "[+]serializable_read ok\nok\n"],
    ["/livez", { readError: "x" }, 200, "ok\n"],
    ["/readyz/linearizable_read", { readError: "x" }, 503, "[-]linearizable_read failed: x\n\n"],
    ["/readyz?exclude=linearizable_read&exclude=nope", { readError: "x" }, 200, "ok\n"],
    ["/readyz", { alarms: [AlarmType.NoSpace] }, 200, "ok\n"],
    [
      "/readyz/data_corruption",
      { alarms: [AlarmType.Corrupt] },
      503,
      "[-]data_corruption failed: alarm activated: CORRUPT\n\n",
    ],
    ["/readyz/nope", {}, 404, "404 page not found\n"],
  ])("%s %j", async (path, state, status, body) => {
    expect(brief(await ask(path, { state }))).toEqual([status, body]);
  });
});

describe("other paths", () => {
  it("tell the version as etcd 3.5.16", async () => {
    const answer = await ask("/version");
    expect(answer.body).toBe('{"etcdserver":"3.5.16","etcdcluster":"3.5.0"}');
    expect(answer.headers["content-type"]).toBe("application/json");
  });

  it.each(["/", "/config", "/members", "/v2beta"])("%s is not found", async (path) => {
    expect(brief(await ask(path))).toEqual([404, "404 page not found\n"]);
  });

  it.each(["/v2", "/v2/keys/a?recursive=true"])("%s is not found either, and says why", async (path) => {
    const why = "the v2 API is not served; use gRPC, or JSON under /v3";
    expect(brief(await ask(path))).toEqual([404, `404 page not found: ${why}\n`]);
  });

  it("answer any OPTIONS, with CORS headers", async () => {
    const answer = await ask("/anything", { method: "OPTIONS" });
    expect(brief(answer)).toEqual([200, ""]);
    expect(answer.headers["access-control-allow-origin"]).toBe("*");
    expect(answer.headers["access-control-allow-headers"]).toBe("accept, content-type, authorization");
  });

  it("name an allowed origin, and no other", async () => {
    const deps = { cors: ["http://a.com:80"] };
    const allowed = await ask("/version", { deps, headers: { origin: "http://a.com:80" } });
    const other = await ask("/version", { deps, headers: { origin: "http://b.com" } });
    expect(allowed.headers["access-control-allow-origin"]).toBe("http://a.com:80");
    expect([other.status, other.headers["access-control-allow-origin"]]).toEqual([200, undefined]);
  });

  it("refuse hosts that are not on the list, health included", async () => {
    const deps = { hostWhitelist: ["good.example"] };
    const answer = await ask("/health", { deps, headers: { host: "bad.example:2379" } });
    expect(answer.status).toBe(421);
    expect(answer.body).toMatch(/^\netcd received your request, but the Host header was unrecognized\./);
    expect((await ask("/health", { deps, headers: { host: "good.example" } })).status).toBe(200);
  });

  it("give variables as JSON", async () => {
    const answer = await ask("/debug/vars");
    const variables = JSON.parse(answer.body);
    expect(variables["raft.status"]).toMatchObject({ id: "8e9e", lead: "2", raftState: "StateLeader", applied: 8 });
    expect(variables.cmdline).toEqual(["etcd"]);
  });
});

describe("metrics listeners", () => {
  it("serve metrics and health, and nothing else", async () => {
    expect((await ask("/health", { isMetrics: true })).status).toBe(200);
    expect((await ask("/version", { isMetrics: true })).status).toBe(404);
    const { body, headers } = await ask("/metrics", { isMetrics: true });
    expect(headers["content-type"]).toMatch(/^text\/plain/);
    expect(body).toContain("etcd_server_has_leader 1\n");
    expect(body).toContain('etcd_server_id{server_id="8e9e"} 1\n');
    expect(body).toContain('etcd_cluster_version{cluster_version="3.5"} 1\n');
    expect(body).toMatch(/^process_open_fds \d+$/m);
  });
});
