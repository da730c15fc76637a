// The HTTP surface beside the real server's: every route of the gateway with good and bad JSON, health and version, and the
// families of /metrics after the same operations. Needs ETCD_REAL_BIN; promtool is asked when it is installed.
import { spawnSync } from "node:child_process";
import http from "node:http";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { httpGet, Member, ourBin, realBin, temporaryFolder } from "./harness/processes.ts";

const b64 = (text: string) => Buffer.from(text).toString("base64");
const json = JSON.stringify;

type Step = readonly [
  method: string,
  path: string,
  body?: string,
  headers?: Readonly<Record<string, string>>,
  grab?: "token",
];

const steps: readonly Step[] = [
  ["POST", "/v3/kv/put", json({ key: b64("a"), value: b64("1") })],
  ["POST", "/v3/kv/put", json({ key: b64("a"), value: b64("2"), prev_kv: true })],
  ["POST", "/v3/kv/put", json({ key: b64("b"), value: b64("2"), prevKv: true })],
  ["POST", "/v3/kv/put", "{}"],
  ["POST", "/v3/kv/put", ""],
  ["POST", "/v3/kv/put", "{"],
  ["POST", "/v3/kv/put", "[]"],
  ["POST", "/v3/kv/put", '{"key":5}'],
  ["POST", "/v3/kv/put", '{"key":"***"}'],
  ["POST", "/v3/kv/put", '{"nope":1,"key":"Yw=="}'],
  ["POST", "/v3/kv/put", '{"key":"Yw==","lease":"7"}'],
  ["POST", "/v3/kv/put", '{"key":"Yw==","lease":"x"}'],
  ["POST", "/v3/kv/put", "null"],
  ["POST", "/v3/kv/put", '"x"'],
  ["POST", "/v3/kv/put", '{"key":null}'],
  ["POST", "/v3/kv/put", '{"key":"Yw"}'],
  ["POST", "/v3/kv/put", '{"key":"-_-_"}'],
  ["POST", "/v3/kv/range", json({ key: b64("a") })],
  ["POST", "/v3/kv/range", json({ key: b64("a"), range_end: b64("z"), limit: "1" })],
  [
    "POST",
    "/v3/kv/range",
    json({ key: b64("a"), rangeEnd: b64("z"), limit: 1, sortOrder: "DESCEND", sort_target: "MOD" }),
  ],
  ["POST", "/v3/kv/range", json({ key: b64("a"), sort_order: "NOPE" })],
  ["POST", "/v3/kv/range", json({ key: b64("a"), sort_order: 2, range_end: b64("z") })],
  ["POST", "/v3/kv/range", json({ key: b64("a"), revision: 99 })],
  ["POST", "/v3/kv/range", json({ key: b64("zz") })],
  ["POST", "/v3/kv/range", json({ key: b64("a"), count_only: true })],
  ["POST", "/v3/kv/range", json({ key: b64("a"), limit: 1.5 })],
  ["POST", "/v3/kv/range", json({ key: b64("a"), limit: 1e3 })],
  ["POST", "/v3/kv/range", json({ key: b64("a"), serializable: "yes" })],
  [
    "POST",
    "/v3/kv/txn",
    json({
      compare: [{ key: b64("a"), target: "VALUE", value: b64("2") }],
      success: [{ request_put: { key: b64("t"), value: b64("1") } }, { requestRange: { key: b64("t") } }],
      failure: [{ request_delete_range: { key: b64("t") } }],
    }),
  ],
  [
    "POST",
    "/v3/kv/txn",
    json({
      compare: [{ key: b64("a"), result: "EQUAL", target: "VERSION", version: "9" }],
      failure: [{ request_delete_range: { key: b64("t"), prev_kv: true } }],
    }),
  ],
  ["POST", "/v3/kv/txn", "{}"],
  ["POST", "/v3/kv/txn", json({ success: [{}] })],
  ["POST", "/v3/kv/txn", json({ success: [{ request_put: { key: b64("d") } }, { request_put: { key: b64("d") } }] })],
  ["POST", "/v3/kv/deleterange", json({ key: b64("t"), prev_kv: true })],
  ["POST", "/v3/kv/deleterange", "{}"],
  ["POST", "/v3/kv/compaction", json({ revision: "3" })],
  ["POST", "/v3/kv/compaction", json({ revision: 3 })],
  ["POST", "/v3/kv/compaction", json({ revision: 300 })],
  ["POST", "/v3/kv/range", json({ key: b64("a"), revision: 2 })],
  ["POST", "/v3/watch", json({ create_request: { key: b64("a"), start_revision: "4" } })],
  ["POST", "/v3/watch", json({ create_request: { key: b64("a"), start_revision: "1" } })],
  ["POST", "/v3/watch", json({ createRequest: { key: b64("a"), filters: ["NOPUT"] } })],
  ["POST", "/v3/lease/grant", json({ TTL: 100, ID: "77" })],
  ["POST", "/v3/lease/grant", json({ TTL: "100", ID: 77 })],
  ["POST", "/v3/lease/grant", json({ ttl: 5 })],
  ["POST", "/v3/lease/timetolive", json({ ID: 77, keys: true })],
  ["POST", "/v3/kv/lease/timetolive", json({ ID: 78 })],
  ["POST", "/v3/lease/keepalive", json({ ID: 77 })],
  ["POST", "/v3/lease/keepalive", json({ ID: 99 })],
  ["POST", "/v3/lease/leases", "{}"],
  ["POST", "/v3/kv/lease/leases", ""],
  ["POST", "/v3/lease/revoke", json({ ID: 77 })],
  ["POST", "/v3/kv/lease/revoke", json({ ID: 77 })],
  ["POST", "/v3/cluster/member/list", "{}"],
  ["POST", "/v3/cluster/member/list", json({ linearizable: true })],
  ["POST", "/v3/cluster/member/add", json({ peerURLs: ["bad"] })],
  ["POST", "/v3/cluster/member/add", json({ peerURLs: ["http://127.0.0.1:2380"] })],
  ["POST", "/v3/cluster/member/remove", json({ ID: 5 })],
  ["POST", "/v3/cluster/member/update", json({ ID: 5, peerURLs: ["http://127.0.0.1:9"] })],
  ["POST", "/v3/cluster/member/promote", json({ ID: 5 })],
  ["POST", "/v3/maintenance/alarm", "{}"],
  ["POST", "/v3/maintenance/alarm", json({ action: "ACTIVATE", alarm: "NOSPACE", memberID: "1" })],
  ["POST", "/v3/maintenance/alarm", json({ action: 1 })],
  ["POST", "/v3/maintenance/alarm", json({ action: "DEACTIVATE", alarm: "NOSPACE", memberID: "1" })],
  ["POST", "/v3/maintenance/status", "{}"],
  ["POST", "/v3/maintenance/defragment", "{}"],
  ["POST", "/v3/maintenance/hash", "{}"],
  ["POST", "/v3/maintenance/hashkv", json({ revision: 0 })],
  ["POST", "/v3/maintenance/hashkv", json({ revision: 99 })],
  ["POST", "/v3/maintenance/transfer-leadership", json({ targetID: 5 })],
  ["POST", "/v3/maintenance/downgrade", json({ action: "VALIDATE", version: "3.4" })],
  ["POST", "/v3/maintenance/downgrade", json({ action: "VALIDATE", version: "x" })],
  ["POST", "/v3/maintenance/downgrade", json({ action: "VALIDATE", version: "3.2" })],
  ["POST", "/v3/maintenance/downgrade", json({ action: "CANCEL" })],
  ["POST", "/v3/maintenance/snapshot", "{}"],
  ["POST", "/v3/auth/status", "{}"],
  ["POST", "/v3/auth/authenticate", json({ name: "root", password: "x" })],
  ["POST", "/v3/auth/user/add", json({ name: "root", password: "pw" })],
  ["POST", "/v3/auth/user/add", json({ name: "root", password: "pw" })],
  ["POST", "/v3/auth/user/add", json({ name: "" })],
  ["POST", "/v3/auth/user/get", json({ name: "root" })],
  ["POST", "/v3/auth/user/get", json({ name: "no" })],
  ["POST", "/v3/auth/user/list", ""],
  ["POST", "/v3/auth/role/add", json({ name: "r" })],
  ["POST", "/v3/auth/role/add", json({ name: "root" })],
  [
    "POST",
    "/v3/auth/role/grant",
    json({ name: "r", perm: { permType: "READWRITE", key: b64("a"), range_end: b64("c") } }),
  ],
  ["POST", "/v3/auth/role/grant", json({ name: "r" })],
  ["POST", "/v3/auth/role/get", json({ role: "r" })],
  ["POST", "/v3/auth/role/list", "{}"],
  ["POST", "/v3/auth/user/grant", json({ user: "root", role: "root" })],
  ["POST", "/v3/auth/user/grant", json({ user: "no", role: "root" })],
  ["POST", "/v3/auth/role/revoke", json({ role: "r", key: b64("a"), range_end: b64("c") })],
  ["POST", "/v3/auth/role/revoke", json({ role: "r", key: b64("a") })],
  ["POST", "/v3/auth/user/changepw", json({ name: "root", password: "pw2" })],
  ["POST", "/v3/auth/user/revoke", json({ name: "root", role: "nope" })],
  ["POST", "/v3/auth/enable", "{}"],
  ["POST", "/v3/kv/range", json({ key: b64("a") })],
  ["POST", "/v3/kv/range", json({ key: b64("a") }), { Authorization: "nonsense" }],
  ["POST", "/v3/auth/authenticate", json({ name: "root", password: "wrong" })],
  ["POST", "/v3/auth/authenticate", json({ name: "root", password: "pw2" }), {}, "token"],
  ["POST", "/v3/auth/disable", "{}", { Authorization: "$token" }],
  ["POST", "/v3/auth/user/delete", json({ name: "root" })],
  ["POST", "/v3/auth/role/delete", json({ role: "r" })],
  ["POST", "/v3/auth/role/delete", json({ role: "r" })],
  ["POST", "/v3/lease/grant", json({ TTL: 100, ID: "88" })],
  ["POST", "/v3/lock/lock", json({ name: b64("l"), lease: "88" })],
  ["POST", "/v3/lock/unlock", json({ key: b64("l/58") })],
  ["POST", "/v3/lock/lock", json({ name: b64("l"), lease: "89" })],
  ["POST", "/v3/election/campaign", json({ name: b64("e"), lease: "88", value: b64("v") })],
  ["POST", "/v3/election/leader", json({ name: b64("e") })],
  ["POST", "/v3/election/leader", json({ name: b64("none") })],
  ["POST", "/v3/election/observe", json({ name: b64("e") })],
  [
    "POST",
    "/v3/election/proclaim",
    json({ leader: { name: b64("e"), key: b64("e/58"), rev: "1", lease: "88" }, value: b64("w") }),
  ],
  ["POST", "/v3/election/proclaim", "{}"],
  ["POST", "/v3/election/resign", json({ leader: { name: b64("e"), key: b64("e/58"), rev: "1", lease: "88" } })],
  ["POST", "/v3/election/resign", "{}"],
  ["GET", "/v3/kv/range"],
  ["PUT", "/v3/kv/put", "{}"],
  ["POST", "/v3/nope", "{}"],
  ["POST", "/v3alpha/kv/range", json({ key: b64("a") })],
  ["POST", "/v3beta/kv/range", json({ key: b64("a") })],
  ["POST", "/v3/", ""],
  ["OPTIONS", "/v3/kv/put"],
  ["GET", "/health"],
  ["POST", "/health"],
  ["GET", "/version"],
  ["POST", "/version"],
  ["GET", "/livez"],
  ["GET", "/livez?verbose"],
  ["GET", "/readyz"],
  ["GET", "/readyz?exclude=linearizable_read&verbose"],
  ["GET", "/readyz/data_corruption"],
  ["GET", "/readyz/nope"],
  ["GET", "/"],
  ["HEAD", "/health"],
  ["GET", "/health?serializable=true"],
];

/** What differs on purpose, by what is asked; docs/compatibility.md says why. */
const DIFFERENT = [
  // Words about JSON that cannot be read are those of a library, and differ between builds of etcd as well.
  /^POST \/v3\/kv\/put (?:\{|\[\]|null|"x"|\{"key":5\}|\{"key":"\*\*\*"\}|\{"key":"Yw==","lease":"x"\})$/,
  /^POST \/v3\/kv\/range \{"key":"YQ==","(?:limit":1.5|serializable":"yes")\}$/,
  // Upstream builds answer 405 and plain text, the packaged one 501 and JSON.
  /^(?:GET|PUT) \/v3\//,
  /^POST \/v3\/(?:nope)? /,
  // The check came with 3.5.19.
  /^GET \/readyz\?exclude=linearizable_read&verbose /,
];

interface Answer {
  readonly status: number;
  readonly headers: http.IncomingHttpHeaders;
  readonly body: string;
}

function ask(member: Member, [method, path, body, headers = {}]: Step, token: string): Promise<Answer> {
  const filled = Object.fromEntries(
    Object.entries(headers).map(([name, value]) => [name, value === "$token" ? token : value]),
  );
  return new Promise((resolve, reject) => {
    const request = http.request(
      `${member.clientUrl}${path}`,
      { method, headers: filled, agent: false },
      (response) => {
        let text = "";
        response.setEncoding("utf8");
        response.on("data", (piece: string) => {
          text += piece;
          // A stream without an end: its first line is enough.
          if (/watch|observe/.test(path) && text.includes("\n")) response.destroy();
        });
        response.on("error", () => {});
        response.on("close", () =>
          resolve({ status: response.statusCode ?? 0, headers: response.headers, body: text }),
        );
      },
    );
    request.on("error", reject);
    request.end(body);
  });
}

/** Without what is each server's own: ids, terms, sizes, hashes, tokens, and blanks. */
function shown(path: string, { status, headers, body }: Answer): string {
  const own = new Set(["date", "content-length", "connection", "keep-alive", "transfer-encoding", "trailer"]);
  const kept = Object.entries(headers).filter(([name]) => !own.has(name) && !name.startsWith("grpc-trailer"));
  const text = body
    .replace(/"(cluster_id|member_id|leader|memberID|ID)":\s*"\d{6,}"/g, '"$1":"#"')
    .replace(/"(raft_term|dbSize|dbSizeInUse|raftIndex|raftAppliedIndex|hash)":\s*"?\d+"?/g, '"$1":"#"')
    .replace(/"(token|blob|remaining_bytes)":\s*"[^"]+"/g, '"$1":"#"')
    .replace(/"error":"(?:[^"\\]|\\.)*","code"/, '"code"')
    .replace(/"TTL":"(?:99|100)"/g, '"TTL":"#"')
    .replaceAll(/([,:]) (?=["{[])/g, "$1");
  return json({ status, headers: kept.sort(), body: path === "/v3/maintenance/snapshot" ? "" : text });
}

/** Families that have no meaning here; docs/monitoring.md says why. */
const ABSENT =
  /^(?:go_|etcd_grpc_proxy_|etcd_debugging_store_|etcd_debugging_disk_backend_commit_)|^(?:etcd_debugging_mvcc_index_compaction_pause_duration_milliseconds|etcd_disk_defrag_inflight|etcd_disk_wal_write_duration_seconds|etcd_mvcc_db_open_read_transactions|etcd_server_go_version|process_network_receive_bytes_total|process_network_transmit_bytes_total)$/;

interface MetricFamily {
  readonly type: string;
  readonly labels: string[];
  readonly buckets: number[];
}

function familiesOf(text: string): Map<string, MetricFamily> {
  const families = new Map<string, { type: string; labels: Set<string>; buckets: Set<number> }>();
  for (const [, name = "", type = ""] of text.matchAll(/^# TYPE (\S+) (\S+)$/gm)) {
    families.set(name, { type, labels: new Set(), buckets: new Set() });
  }
  for (const [, name = "", labels = ""] of text.matchAll(/^([a-z_0-9]+)(?:\{(.*)\})? \S+$/gm)) {
    const family = families.get(name) ?? families.get(name.replace(/_(?:bucket|sum|count)$/, ""));
    for (const [, label = "", value = ""] of labels.matchAll(/(\w+)="([^"]*)"/g)) {
      if (label === "le") family?.buckets.add(Number(value.replace("+Inf", "Infinity")));
      else family?.labels.add(label);
    }
  }
  return new Map(
    [...families].map(([name, { type, labels, buckets }]) => [
      name,
      { type, labels: [...labels].sort(), buckets: [...buckets].sort((a, b) => a - b) },
    ]),
  );
}

describe.skipIf(realBin === undefined)("beside the real server (needs ETCD_REAL_BIN)", () => {
  const folder = temporaryFolder("surface");
  let real: Member;
  let ours: Member;
  beforeAll(async () => {
    const flags = [
      ...["--metrics", "extensive", "--advertise-client-urls", "http://127.0.0.1:2379"],
      ...[
        "--initial-advertise-peer-urls",
        "http://127.0.0.1:2380",
        "--initial-cluster",
        "default=http://127.0.0.1:2380",
      ],
    ];
    real = await Member.start({ dataDir: `${folder.path}/real`, bin: realBin as string, flags });
    ours = await Member.start({ dataDir: `${folder.path}/ours`, bin: ourBin, flags });
  });
  afterAll(async () => {
    await real?.kill();
    await ours?.kill();
    folder[Symbol.dispose]();
  });

  it("the same requests have the same answers: status, headers and bodies", async () => {
    const tokens = ["", ""];
    const differences: string[] = [];
    for (const step of steps) {
      const [method, path, body = "", , grab] = step;
      const answers = [await ask(real, step, tokens[0] ?? ""), await ask(ours, step, tokens[1] ?? "")];
      if (grab) {
        for (const [i, { body: text }] of answers.entries()) tokens[i] = /"token":\s*"([^"]+)"/.exec(text)?.[1] ?? "";
      }
      const [theirs, own] = answers.map((answer) => shown(path, answer));
      const what = `${method} ${path} ${body}`;
      if (theirs !== own && !DIFFERENT.some((known) => known.test(what))) {
        differences.push(`${what}\n  real ${theirs}\n  ours ${own}`);
      }
    }
    expect(differences.join("\n")).toBe("");
  });

  it("/metrics has the same families, with their types, labels and buckets", async () => {
    const theirs = familiesOf(await httpGet(`${real.clientUrl}/metrics`));
    const own = familiesOf(await httpGet(`${ours.clientUrl}/metrics`));
    const wanted = [...theirs].filter(([name]) => !ABSENT.test(name));
    expect(wanted.length).toBeGreaterThan(70);
    expect(Object.fromEntries(wanted.map(([name]) => [name, own.get(name)]))).toEqual(Object.fromEntries(wanted));
    expect([...own.keys()].filter((name) => !theirs.has(name))).toEqual([]);
  });
});

const promtool = spawnSync("promtool", ["--version"]).status === 0;

it.skipIf(!promtool)(
  "promtool finds nothing wrong with /metrics but names that are etcd's (needs promtool)",
  async () => {
    using folder = temporaryFolder("promtool");
    await using member = await Member.start({ dataDir: `${folder.path}/data`, flags: ["--metrics", "extensive"] });
    const checked = spawnSync("promtool", ["check", "metrics"], {
      input: await httpGet(`${member.clientUrl}/metrics`),
      encoding: "utf8",
    });
    const complaints = (checked.stdout + checked.stderr).split("\n").filter((line) => line !== "");
    const aboutNames =
      /^etcd_\w+ (?:(?:non-counter metrics should not|counter metrics should) have "_total" suffix|use base unit "seconds" instead of "milliseconds")$/;
    expect(complaints.filter((line) => !aboutNames.test(line))).toEqual([]);
  },
);
