/**
 * The schema against the fact tables beside the checkout (../shared/facts/wire/etcd-v3-api.json): every message, field,
 * number, type and enum, every method, and the byte vectors that etcd's own encoders made.
 */
import fs from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import * as wire from "@etcd-ts/client/wire";
import { describe, expect, it } from "vitest";
import { codecsOf, fromJson } from "../../../client/src/wire/testing.ts";
import * as authpb from "./authpb.ts";
import * as etcdserverpb from "./etcdserverpb.ts";
import * as leasepb from "./leasepb.ts";
import * as membershippb from "./membershippb.ts";
import * as raftpb from "./raftpb.ts";
import * as snappb from "./snappb.ts";
import * as walpb from "./walpb.ts";

interface FactField {
  readonly name: string;
  readonly number: number;
  readonly type: string;
  readonly kind: "scalar" | "message" | "enum";
  readonly label: "optional" | "repeated";
  readonly oneof: string | null;
  readonly jsonName: string;
  readonly until?: string;
  readonly packed?: boolean;
}
interface FactMethod {
  readonly name: string;
  readonly path: string;
  readonly request: string;
  readonly response: string;
  readonly clientStreaming: boolean;
  readonly serverStreaming: boolean;
  readonly http: readonly { readonly path: string }[];
}
interface Facts {
  readonly packages: Readonly<
    Record<
      string,
      {
        readonly messages: Readonly<Record<string, { readonly fields: readonly FactField[] }>>;
        readonly enums: Readonly<
          Record<string, { readonly values: readonly { readonly name: string; readonly number: number }[] }>
        >;
        readonly services: Readonly<Record<string, { readonly methods: readonly FactMethod[] }>>;
      }
    >
  >;
  readonly vectors: readonly {
    readonly message: string;
    readonly value: Record<string, unknown>;
    readonly hex: string;
  }[];
}

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../../../..");
const factsFile = path.resolve(root, "../shared/facts/wire/etcd-v3-api.json");
const facts = fs.existsSync(factsFile) ? (JSON.parse(fs.readFileSync(factsFile, "utf8")) as Facts) : undefined;
if (!facts) process.stderr.write("pb/facts.test.ts: skipped, there is no ../shared beside the checkout\n");

const modules = { ...authpb, ...leasepb };
const codecs = new Map(
  [wire, authpb, etcdserverpb, leasepb, membershippb, raftpb, snappb, walpb, modules]
    .flatMap((module) => codecsOf(module))
    .map((codec) => [codec.typeName, codec]),
);
const enums = new Map(
  [wire, raftpb]
    .flatMap((module) => Object.values(module as Readonly<Record<string, unknown>>))
    .filter((value): value is wire.EnumInfo => typeof value === "object" && value !== null && "numberOf" in value)
    .map((info) => [info.typeName, info]),
);
const services = new Map(
  Object.values(wire as Readonly<Record<string, unknown>>)
    .filter((value): value is wire.ServiceInfo => typeof value === "object" && value !== null && "methods" in value)
    .map((service) => [service.typeName, service]),
);

/** What the facts say about a field, in the words of a descriptor. */
function described(codec: wire.Codec<unknown>) {
  return codec.fields.map((field) => {
    const message = field.message?.();
    return {
      name: field.name,
      number: field.number,
      type: message?.typeName ?? field.enum?.typeName ?? field.type,
      kind: message ? "message" : field.enum ? "enum" : "scalar",
      label: field.isRepeated ? "repeated" : "optional",
      isInOneof: field.oneof !== undefined,
      jsonName: field.jsonName,
    };
  });
}

describe.skipIf(!facts)("the schema is etcd's", () => {
  const packages = Object.entries(facts?.packages ?? {});

  it.each(
    packages.flatMap(([name, pkg]) => Object.entries(pkg.messages).map(([m, v]) => [`${name}.${m}`, v] as const)),
  )("message %s", (name, message) => {
    const codec = codecs.get(name);
    expect(codec, `${name} is missing`).toBeDefined();
    expect(described(codec as wire.Codec<unknown>)).toEqual(
      message.fields.map((f) => ({
        name: f.name,
        number: f.number,
        type: f.type,
        kind: f.kind,
        label: f.label,
        isInOneof: f.oneof !== null,
        jsonName: f.jsonName,
      })),
    );
  });

  it.each(packages.flatMap(([name, pkg]) => Object.entries(pkg.enums).map(([e, v]) => [`${name}.${e}`, v] as const)))(
    "enum %s",
    (name, value) => {
      const info = enums.get(name);
      expect(info, `${name} is missing`).toBeDefined();
      expect(info?.numberOf).toEqual(Object.fromEntries(value.values.map((v) => [v.name, v.number])));
    },
  );

  it.each(
    packages.flatMap(([name, pkg]) => Object.entries(pkg.services).map(([s, v]) => [`${name}.${s}`, v] as const)),
  )("service %s", (name, service) => {
    const info = services.get(name);
    expect(info, `${name} is missing`).toBeDefined();
    const methods = Object.values(info?.methods ?? {}).map((m) => ({
      name: m.name,
      path: m.path,
      request: m.request.typeName,
      response: m.response.typeName,
      kind: m.kind,
      routes: m.routes,
    }));
    expect(methods).toEqual(
      service.methods.map((m) => ({
        name: m.name,
        path: m.path,
        request: m.request,
        response: m.response,
        kind: m.clientStreaming
          ? m.serverStreaming
            ? "bidi"
            : "clientStream"
          : m.serverStreaming
            ? "serverStream"
            : "unary",
        routes: m.http.map((h) => h.path),
      })),
    );
  });

  it("has nothing that etcd has not", () => {
    const messages = packages.flatMap(([name, pkg]) => Object.keys(pkg.messages).map((m) => `${name}.${m}`));
    expect([...codecs.keys()].sort()).toEqual(messages.sort());
  });

  it.each((facts?.vectors ?? []).map((v) => [v.message, JSON.stringify(v.value), v] as const))(
    "encodes and decodes %s %s as etcd does",
    (name, _json, vector) => {
      const codec = codecs.get(name) as wire.Codec<unknown>;
      const message = fromJson(codec, vector.value);
      const bytes = codec.encode(message as wire.Init<unknown>);
      expect(Buffer.from(bytes).toString("hex")).toBe(vector.hex);
      expect(codec.decode(bytes)).toEqual(message);
    },
  );
});
