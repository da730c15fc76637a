// Every kind of answer in every format, against testdata/formats.txt (rewritten by UPDATE_GOLDEN=1), and the JSON of the
// real tool's recorded outputs, where they are at hand, read and written again.
import fs from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { ExitError } from "../exit.ts";
import { fromBytes, toBytes } from "../go/bytes.ts";
import { bytes, header } from "../testing/harness.ts";
import type { AnswerKind, Answers } from "./answers.ts";
import { openPrinter } from "./printer.ts";
import { renderTable, wrapCell } from "./table.ts";

const MEMBER = 10276657743932975437n;
const pair = {
  key: bytes('k"\udcff'),
  value: Uint8Array.of(0, 255, 10),
  createRevision: 2,
  modRevision: 3,
  version: 2,
  lease: 0n,
};
const leased = {
  key: bytes("l"),
  value: bytes("<&>"),
  createRevision: 4,
  modRevision: 4,
  version: 1,
  lease: -7587848389885n,
};
const members = [
  {
    id: MEMBER,
    name: "default",
    peerUrls: ["http://a:2380"],
    clientUrls: ["http://a:2379", "http://b:2379"],
    isLearner: false,
  },
  { id: 5n, name: "", peerUrls: ["http://c:2380"], clientUrls: [], isLearner: true },
];
const status = {
  header: header(3),
  version: "3.5.16",
  dbSize: 20480,
  leader: MEMBER,
  raftIndex: 9,
  raftTerm: 2,
  raftAppliedIndex: 8,
  errors: ["memberID:10276657743932975437 alarm:NOSPACE "],
  dbSizeInUse: 16384,
  isLearner: false,
};
const named = { header: header(3), user: "u", role: "r" };
const range = { header: header(9), kvs: [pair, leased], more: true, count: 7 };

const samples = {
  get: range,
  put: { header: header(3), prevKv: pair },
  del: { header: header(4), deleted: 2, prevKvs: [pair, leased] },
  txn: {
    header: header(5),
    succeeded: true,
    responses: [
      {
        response: {
          kind: "responsePut",
          value: { header: { ...header(5), clusterId: 0n, memberId: 0n, raftTerm: 0 }, prevKv: undefined },
        },
      },
      { response: { kind: "responseRange", value: { ...range, header: undefined } } },
      { response: { kind: "responseDeleteRange", value: { header: undefined, deleted: 1, prevKvs: [] } } },
      { response: { kind: "responseTxn", value: { header: undefined, succeeded: false, responses: [] } } },
    ],
  },
  watch: {
    header: header(6),
    events: [
      { type: 0, kv: pair, prevKv: leased },
      { type: 1, kv: { ...leased, createRevision: 0, version: 0, value: bytes("") }, prevKv: undefined },
    ],
    compactRevision: 0,
    canceled: false,
    created: false,
  },
  leaseGrant: { header: header(1), id: 31n, ttl: 10, error: "" },
  leaseRevoke: { header: header(2), id: -1n },
  leaseKeepAlive: { header: header(1), id: 31n, ttl: 10 },
  leaseTimeToLive: {
    header: header(1),
    id: 31n,
    ttl: 9,
    grantedTtl: 10,
    keys: [bytes("a"), bytes("b\n")],
    withKeys: true,
  },
  leaseList: { header: header(1), leases: [{ id: 31n }, { id: -1n }] },
  memberAdd: { header: header(0), member: members[1], members, name: "n", peerUrls: "http://c:2380" },
  memberUpdate: { header: header(0), members, id: 5n },
  memberRemove: { header: header(0), members, id: 5n },
  memberPromote: { header: header(0), members, id: 5n },
  memberList: { header: header(0), members },
  endpointHealth: [
    { endpoint: "a:2379", health: true, took: "1.2ms", error: "" },
    { endpoint: "b:2379", health: false, took: "1.000721034s", error: "context deadline exceeded" },
  ],
  endpointStatus: [{ endpoint: "a:2379", status }],
  endpointHash: [{ endpoint: "a:2379", hash: { header: header(3), hash: 1084519789, compactRevision: -1 } }],
  alarm: {
    header: header(1),
    alarms: [
      { memberId: MEMBER, alarm: 1 },
      { memberId: 5n, alarm: 2 },
    ],
  },
  moveLeader: { header: undefined, from: MEMBER, to: 5n },
  authStatus: { header: header(1), enabled: true, authRevision: 4 },
  userAdd: named,
  userDelete: named,
  userPasswd: named,
  userGrantRole: named,
  userRevokeRole: named,
  userGet: { ...named, roles: ["r", "s"] },
  userList: { header: header(1), users: ["u", "<v>"] },
  roleAdd: named,
  roleDelete: named,
  roleGet: {
    ...named,
    perm: [
      { permType: 0, key: bytes("a"), rangeEnd: bytes("b") },
      { permType: 1, key: bytes("k"), rangeEnd: bytes("") },
      { permType: 2, key: bytes("z"), rangeEnd: bytes("\0") },
    ],
  },
  roleList: { header: header(1), roles: [] },
  roleGrantPermission: named,
  roleRevokePermission: { ...named, key: "a", rangeEnd: "b" },
} as unknown as Answers;

const formats = ["simple", "json", "fields", "table", "protobuf"] as const;

async function printed(format: string, kind: AnswerKind, answer: Answers[AnswerKind], hex = false): Promise<string> {
  const pieces: Uint8Array[] = [];
  const sink = {
    isTerminal: false,
    write: (piece: string | Uint8Array) => void pieces.push(typeof piece === "string" ? toBytes(piece) : piece),
  };
  const printer = await openPrinter(format, { hex, out: sink, err: sink });
  try {
    printer.print(kind, answer as never);
  } catch (error) {
    if (!(error instanceof ExitError)) throw error;
    return `(exit ${error.exitCode}: ${error.message})\n`;
  }
  const all = Buffer.concat(pieces);
  return format === "protobuf" ? `${all.toString("hex")}\n` : fromBytes(all);
}

const visible = (text: string): string =>
  text.replace(/[\udc80-\udcff\0]/g, (c) => `\\x${(c.charCodeAt(0) & 0xff).toString(16).padStart(2, "0")}`);

test("every answer in every format", async () => {
  const file = fileURLToPath(new URL("../testdata/formats.txt", import.meta.url));
  let trace = "";
  for (const kind of Object.keys(samples) as AnswerKind[]) {
    for (const format of formats) {
      trace += `== ${kind} ${format}\n${visible(await printed(format, kind, samples[kind]))}`;
    }
  }
  trace += `== get simple --hex\n${await printed("simple", "get", samples.get, true)}`;
  trace += `== memberList json --hex\n${await printed("json", "memberList", samples.memberList, true)}`;
  if (process.env.UPDATE_GOLDEN) fs.writeFileSync(file, trace);
  expect(trace).toBe(fs.readFileSync(file, "utf8"));
});

test("wrapCell() breaks where the lines come out most even", () => {
  expect(wrapCell("memberID:10276657743932975437 alarm:NOSPACE ")).toEqual([
    "memberID:10276657743932975437",
    "alarm:NOSPACE ",
  ]);
  expect(wrapCell("aaaaaaaaaa bbbbbbbbbb cccccccccc dddddddddd")).toEqual([
    "aaaaaaaaaa bbbbbbbbbb",
    "cccccccccc dddddddddd",
  ]);
  const long = "x".repeat(40);
  expect(wrapCell(`${long} y`)).toEqual([long, "y"]);
});

test("a table without rows ends with a rule of its own", () => {
  expect(renderTable({ header: ["endpoint", "hash"], rows: [] })).toBe(
    "+----------+------+\n| ENDPOINT | HASH |\n+----------+------+\n+----------+------+\n",
  );
});

const recorded = path.resolve(fileURLToPath(new URL(".", import.meta.url)), "../../../../../shared/conformance/golden");

test.skipIf(!fs.existsSync(recorded))(
  "ranges of the real tool's recordings are written as they were read",
  async () => {
    let compared = 0;
    for (const name of fs.readdirSync(recorded)) {
      for (const line of fs.readFileSync(path.join(recorded, name), "utf8").split("\n")) {
        if (!/^\| \{"header":\{[^{}]*\},"kvs":/.test(line) || line.includes("<base64>")) continue;
        // Placeholders of the recorder become numbers.
        const json = line.slice(2).replace(/<[a-z0-9]+>/g, "18446744073709551615");
        const parsed = parseBig(json) as {
          header: Record<string, bigint>;
          kvs: Record<string, string | bigint>[];
          more?: boolean;
          count?: bigint;
        };
        const number = (value: unknown): number => Number(value ?? 0n);
        const answer = {
          header: {
            clusterId: parsed.header.cluster_id ?? 0n,
            memberId: parsed.header.member_id ?? 0n,
            revision: number(parsed.header.revision),
            raftTerm: 2,
          },
          kvs: parsed.kvs.map((kv) => ({
            key: Buffer.from((kv.key as string) ?? "", "base64"),
            value: Buffer.from((kv.value as string) ?? "", "base64"),
            createRevision: number(kv.create_revision),
            modRevision: number(kv.mod_revision),
            version: number(kv.version),
            lease: (kv.lease as bigint) ?? 0n,
          })),
          more: parsed.more ?? false,
          count: number(parsed.count),
        } as Answers["get"];
        const expected = json.replace(/"raft_term":\d+/, '"raft_term":2');
        expect(await printed("json", "get", answer)).toBe(`${expected}\n`);
        compared++;
      }
    }
    expect(compared).toBeGreaterThan(10);
  },
);

/** JSON whose numbers become bigints. */
function parseBig(json: string): unknown {
  return JSON.parse(json.replace(/:(\d+)/g, ':"#$1"'), (_, value: unknown) =>
    typeof value === "string" && value.startsWith("#") ? BigInt(value.slice(1)) : value,
  );
}
