// /debug/pprof and /debug/vars of a running server.
import http from "node:http";
import { gunzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { isOnReferenceTransport, Member, must, temporaryFolder, until } from "./harness/processes.ts";

interface Answer {
  readonly status: number;
  readonly headers: http.IncomingHttpHeaders;
  readonly body: Buffer;
}

function get(url: string): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const request = http.get(url, { agent: false }, (response) => {
      const pieces: Buffer[] = [];
      response.on("data", (piece: Buffer) => pieces.push(piece));
      response.on("error", reject);
      response.on("end", () => {
        resolve({ status: response.statusCode ?? 0, headers: response.headers, body: Buffer.concat(pieces) });
      });
    });
    request.on("error", reject);
  });
}

const folder = temporaryFolder("debug");
let member: Member;
const debug = (path: string) => get(`${member.clientUrl}/debug/${path}`);
/** Function names and types stand in the string table as they are. */
const textOf = (answer: Answer) => gunzipSync(answer.body).toString("latin1");

beforeAll(async () => {
  member = await Member.start({ dataDir: `${folder.path}/data`, flags: ["--enable-pprof"] });
});
afterAll(async () => {
  await member.kill();
  folder[Symbol.dispose]();
});

describe("/debug/pprof", () => {
  it("lists its profiles", async () => {
    expect(member.log).toContain('"msg":"pprof is enabled","path":"/debug/pprof"');
    const { status, headers, body } = await debug("pprof/");
    expect([status, headers["content-type"]]).toEqual([200, "text/html; charset=utf-8"]);
    for (const name of ["cmdline", "goroutine", "heap", "profile", "symbol", "trace"]) {
      expect(body.toString()).toContain(`>${name}</a>`);
    }
    const moved = await debug("pprof");
    expect([moved.status, moved.headers.location]).toEqual([301, "/debug/pprof/"]);
  });

  it("gives CPU time by function, one profile at a time", async () => {
    const first = debug("pprof/profile?seconds=2");
    // The second one may come before the first has begun, so ask until it is refused.
    const refused = await until("a second profile is refused", async () => {
      const answer = await debug("pprof/profile?seconds=0.01");
      return answer.status === 500 ? answer : undefined;
    });
    expect(refused.headers["x-go-pprof"]).toBe("1");
    expect(refused.body.toString()).toBe("Could not enable CPU profiling: cpu profiling already in use\n");
    await must("etcdctl", ["--endpoints", member.endpoint, "put", "a", "b"]);
    const profile = await first;
    expect(profile.status).toBe(200);
    expect(profile.headers["content-disposition"]).toBe('attachment; filename="profile"');
    for (const part of ["nanoseconds", "cpu", "/dist/"]) expect(textOf(profile)).toContain(part);
  });

  it("gives the heap by place of allocation, as a profile and as text", async () => {
    const heap = await debug("pprof/heap");
    expect(heap.headers["content-disposition"]).toBe('attachment; filename="heap"');
    for (const part of ["inuse_space", "bytes"]) expect(textOf(heap)).toContain(part);
    expect((await debug("pprof/heap?debug=1")).body.toString()).toMatch(/^heap profile: \d+ bytes @ heap\/524288\n/);
  });

  it("gives what the event loop waits for in the place of goroutines", async () => {
    expect((await debug("pprof/goroutine?debug=1")).body.toString()).toMatch(/^goroutine profile: total \d+\n\d+ @ /);
    expect(textOf(await debug("pprof/goroutine"))).toContain("TCPServerWrap");
  });

  it("gives trace events, the command line, and 404 for what Go alone has", async () => {
    const trace = JSON.parse((await debug("pprof/trace?seconds=0.2")).body.toString()) as { traceEvents: unknown[] };
    expect(Array.isArray(trace.traceEvents)).toBe(true);
    expect((await debug("pprof/cmdline")).body.toString().split("\0")).toContain("--enable-pprof");
    expect((await debug("pprof/symbol")).body.toString()).toBe("num_symbols: 1\n");
    const unknown = await debug("pprof/mutex");
    expect([unknown.status, unknown.body.toString()]).toEqual([404, "Unknown profile\n"]);
  });

  it("is not there without the flag", async () => {
    using other = temporaryFolder("debug");
    await using plain = await Member.start({ dataDir: `${other.path}/data` });
    const { status, body } = await get(`${plain.clientUrl}/debug/pprof/`);
    expect([status, body.toString()]).toEqual([404, "404 page not found\n"]);
  });
});

it("/debug/vars tells raft's state in etcd's words", async () => {
  const vars = JSON.parse((await debug("vars")).body.toString()) as Record<string, Record<string, unknown>>;
  expect(Object.keys(vars)).toEqual(["cmdline", "file_descriptor_limit", "memstats", "raft.status"]);
  const status = vars["raft.status"] as Record<string, unknown>;
  const { id, commit } = status as { id: string; commit: number };
  expect(id).toMatch(/^[0-9a-f]+$/);
  expect(status).toEqual({
    id,
    term: expect.any(Number),
    vote: id,
    commit,
    lead: id,
    raftState: "StateLeader",
    applied: expect.any(Number),
    progress: { [id]: { match: commit, next: commit + 1, state: "StateReplicate" } },
    leadtransferee: "0",
  });
});

// Only the server's own HTTP/2 sees header fields one by one.
it.skipIf(isOnReferenceTransport)(
  "GODEBUG=http2debug=2 prints the header fields of calls, as a Go server does",
  async () => {
    using folder = temporaryFolder("http2debug");
    await using member = await Member.start({ dataDir: folder.path, env: { GODEBUG: "madvdontneed=1,http2debug=2" } });
    await must("etcdctl", ["--endpoints", member.endpoint, "put", "a", "b"]);
    const line = /^http2: decoded hpack field header field ":authority" = "(.*)"$/m;
    const [, authority] = await until("the authority is printed", () => line.exec(member.log) ?? undefined);
    expect(authority).toBe(member.endpoint);
  },
);
