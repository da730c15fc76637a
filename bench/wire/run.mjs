// Measures encoding and decoding of PutRequest, RangeResponse with 1,000 key-values, and WatchResponse: our generated
// codecs against protobufjs (reflection and static), @bufbuild/protobuf and ts-proto.
//
//   node bench/wire/run.mjs            ours and protobufjs by reflection (both are installed)
//   node bench/wire/run.mjs --peers    also installs the others into a temporary folder (removed afterwards)
//
// Prints microseconds per message, the best of several rounds that alternate between the codecs. What it said last
// stands in docs/adr/0001-wire-codecs.md.
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import { createRequire } from "node:module";
import os from "node:os";
import path from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import protobuf from "protobufjs";
import { rolldown } from "rolldown";

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../..");
const withPeers = process.argv.includes("--peers");
const PEERS = {
  "@bufbuild/buf": "1.75.0",
  "@bufbuild/protobuf": "2.17.0",
  "@bufbuild/protoc-gen-es": "2.17.0",
  "ts-proto": "2.18.0",
  protobufjs: "8.8.1",
  "protobufjs-cli": "2.7.1",
};
const ROUNDS = 7;
const ROUND_MS = 250;

const work = fs.mkdtempSync(path.join(os.tmpdir(), "etcd-ts-bench-wire-"));
process.on("exit", () => fs.rmSync(work, { recursive: true, force: true }));

async function bundle(input, name) {
  const build = await rolldown({
    input,
    cwd: root,
    platform: "node",
    external: [/^node:/],
    resolve: { conditionNames: ["etcd-ts-source", "import", "node", "default"] },
  });
  const file = path.join(work, `${name}.mjs`);
  await build.write({ file, format: "esm", minify: false });
  await build.close();
  return import(pathToFileURL(file).href);
}

/** The public .proto files without what only our generator and the gateway need. */
function plainProtos() {
  const out = path.join(work, "proto");
  for (const file of ["mvccpb/kv.proto", "authpb/auth.proto", "etcdserverpb/rpc.proto"]) {
    let text = fs.readFileSync(path.join(root, "proto", file), "utf8");
    text = text
      .replace(/import "google\/api\/annotations.proto";\n/, "")
      .replace(/ \{\n\s*option \(google\.api\.http\) = .*\n\s*\}/g, ";")
      .replace(/ \[jstype = JS_NUMBER\]/g, "");
    fs.mkdirSync(path.dirname(path.join(out, file)), { recursive: true });
    fs.writeFileSync(path.join(out, file), text);
  }
  return out;
}

const bytes = (text) => new Uint8Array(Buffer.from(text));
const plainKv = (i) => ({
  key: bytes(`/registry/pods/default/pod-${String(i).padStart(6, "0")}`),
  createRevision: 1_000_000 + i,
  modRevision: 2_000_000 + i,
  version: 3,
  value: new Uint8Array(300).fill(i),
  lease: i % 10 === 0 ? 7_587_870_000_000_000_000n : 0n,
});
const header = { clusterId: 14841639068965178418n, memberId: 10276657743932975437n, revision: 2_001_000, raftTerm: 5 };
const samples = {
  PutRequest: { key: plainKv(1).key, value: plainKv(1).value },
  RangeResponse: { header, kvs: Array.from({ length: 1000 }, (_, i) => plainKv(i)), count: 1000 },
  WatchResponse: { header, watchId: 3n, events: [{ kv: plainKv(7) }] },
};

async function ours() {
  const wire = await bundle("packages/client/src/wire/index.ts", "ours");
  return Object.fromEntries(
    Object.entries(samples).map(([name, sample]) => {
      const codec = wire[name];
      const message = codec.create(sample);
      return [name, { encode: () => codec.encode(message), decode: (input) => codec.decode(input) }];
    }),
  );
}

/** protobufjs objects keep proto names in camelCase and 64-bit values as Long. */
function forProtobufjs(types) {
  return Object.fromEntries(
    Object.entries(samples).map(([name, sample]) => {
      const type = types(name);
      const object = JSON.parse(
        JSON.stringify(sample, (_key, value) =>
          typeof value === "bigint"
            ? String(value)
            : value instanceof Uint8Array
              ? Buffer.from(value).toString("base64")
              : value,
        ),
        (key, value) => (key === "clusterId" || key === "memberId" || key === "lease" ? String(value) : value),
      );
      const message = type.fromObject(object);
      return [name, { encode: () => type.encode(message).finish(), decode: (input) => type.decode(input) }];
    }),
  );
}

function reflection(protoDir) {
  const tree = new protobuf.Root();
  tree.resolvePath = (_origin, target) => path.join(protoDir, target);
  tree.loadSync("etcdserverpb/rpc.proto");
  return forProtobufjs((name) => tree.lookupType(`etcdserverpb.${name}`));
}

async function peers(protoDir) {
  const folder = path.join(work, "peers");
  fs.mkdirSync(folder);
  fs.writeFileSync(
    path.join(folder, "package.json"),
    JSON.stringify({ type: "module", private: true, dependencies: PEERS }),
  );
  execFileSync("npm", ["install", "--no-audit", "--no-fund", "--silent"], {
    cwd: folder,
    stdio: ["ignore", "ignore", "inherit"],
  });
  const bin = (name) => path.join(folder, "node_modules", ".bin", name);
  const require = createRequire(path.join(folder, "package.json"));

  execFileSync(
    bin("pbjs"),
    [
      "-t",
      "static-module",
      "-w",
      "commonjs",
      "-p",
      protoDir,
      "-o",
      "static.cjs",
      path.join(protoDir, "etcdserverpb/rpc.proto"),
    ],
    { cwd: folder },
  );
  const statics = require(path.join(folder, "static.cjs"));

  fs.writeFileSync(path.join(folder, "buf.yaml"), "version: v2\nmodules:\n  - path: proto\n");
  fs.cpSync(protoDir, path.join(folder, "proto"), { recursive: true });
  fs.writeFileSync(
    path.join(folder, "buf.gen.yaml"),
    `version: v2\nplugins:\n  - local: ${bin("protoc-gen-es")}\n    out: es\n    opt: [target=js, import_extension=js]\n` +
      `  - local: ${bin("protoc-gen-ts_proto")}\n    out: tsproto\n    opt: [forceLong=bigint, outputServices=none, esModuleInterop=true, importSuffix=.ts, outputJsonMethods=false, outputPartialMethods=false]\n`,
  );
  execFileSync(bin("buf"), ["generate"], { cwd: folder });

  const es = await import(pathToFileURL(path.join(folder, "es/etcdserverpb/rpc_pb.js")).href);
  const { create, toBinary, fromBinary } = await import(
    pathToFileURL(require.resolve("@bufbuild/protobuf").replace("/cjs/", "/esm/")).href
  );
  const tsProto = await bundle(path.join(folder, "tsproto/etcdserverpb/rpc.ts"), "ts-proto");
  const big = (value) =>
    typeof value === "number"
      ? BigInt(value)
      : value instanceof Uint8Array || typeof value !== "object"
        ? value
        : Array.isArray(value)
          ? value.map(big)
          : Object.fromEntries(Object.entries(value).map(([k, v]) => [k, big(v)]));
  const complete = (name) => {
    const sample = big(samples[name]);
    const kv = (k) => ({ ...k });
    if (name === "PutRequest") return { lease: 0n, prevKv: false, ignoreValue: false, ignoreLease: false, ...sample };
    if (name === "RangeResponse") return { more: false, ...sample, kvs: sample.kvs.map(kv) };
    return {
      created: false,
      canceled: false,
      compactRevision: 0n,
      cancelReason: "",
      fragment: false,
      ...sample,
      events: sample.events.map((e) => ({ type: 0, prevKv: undefined, ...e })),
    };
  };
  return {
    "protobufjs, static": forProtobufjs((name) => statics.etcdserverpb[name]),
    "@bufbuild/protobuf": Object.fromEntries(
      Object.keys(samples).map((name) => {
        const schema = es[`${name}Schema`];
        const message = create(schema, big(samples[name]));
        return [name, { encode: () => toBinary(schema, message), decode: (input) => fromBinary(schema, input) }];
      }),
    ),
    "ts-proto": Object.fromEntries(
      Object.keys(samples).map((name) => {
        const codec = tsProto[name];
        const message = complete(name);
        return [name, { encode: () => codec.encode(message).finish(), decode: (input) => codec.decode(input) }];
      }),
    ),
  };
}

/** Microseconds a call, over about ROUND_MS. */
function measure(fn) {
  let calls = 1;
  for (;;) {
    const start = process.hrtime.bigint();
    for (let i = 0; i < calls; i++) fn();
    const ms = Number(process.hrtime.bigint() - start) / 1e6;
    if (ms >= ROUND_MS) return (ms * 1000) / calls;
    calls = Math.max(calls * 2, Math.ceil((calls * ROUND_MS) / Math.max(ms, 1)));
  }
}

const protoDir = plainProtos();
const codecs = {
  ours: await ours(),
  "protobufjs, reflection": reflection(protoDir),
  ...(withPeers ? await peers(protoDir) : {}),
};

const results = new Map();
for (const name of Object.keys(samples)) {
  const input = Buffer.from(codecs.ours[name].encode());
  for (const [library, table] of Object.entries(codecs)) {
    if (Buffer.compare(Buffer.from(table[name].encode()), input) !== 0)
      throw new Error(`${library}: other bytes for ${name}`);
  }
  for (let round = 0; round < ROUNDS; round++) {
    for (const [library, table] of Object.entries(codecs)) {
      for (const [what, fn] of [
        ["encode", () => table[name].encode()],
        ["decode", () => table[name].decode(input)],
      ]) {
        const key = `${library}|${name} ${what}`;
        results.set(key, Math.min(results.get(key) ?? Number.POSITIVE_INFINITY, measure(fn)));
      }
    }
  }
}

const columns = Object.keys(samples).flatMap((name) => [`${name} encode`, `${name} decode`]);
process.stdout.write(`Node ${process.version}, ${os.cpus()[0]?.model}; microseconds a message\n\n`);
process.stdout.write(`| | ${columns.join(" | ")} |\n|---|${columns.map(() => "---:|").join("")}\n`);
for (const library of Object.keys(codecs)) {
  const cells = columns.map((column) => {
    const value = results.get(`${library}|${column}`);
    return value < 10 ? value.toFixed(2) : value.toFixed(0);
  });
  process.stdout.write(`| ${library} | ${cells.join(" | ")} |\n`);
}
