import fs from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { Code, codeName, EtcdError, errorTable, etcdErrorFromStatus } from "./index.ts";

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../../../..");
const factsFile = path.resolve(root, "../shared/facts/server-errors.md");
const hasFacts = fs.existsSync(factsFile);
if (!hasFacts) process.stderr.write("wire/errors.test.ts: skipped, there is no ../shared beside the checkout\n");

describe("EtcdError", () => {
  it("carries the code and the exact text of its kind", () => {
    const error = new EtcdError("Compacted");
    expect([error.kind, error.code, error.message, error.name]).toEqual([
      "Compacted",
      Code.OutOfRange,
      "etcdserver: mvcc: required revision has been compacted",
      "EtcdError",
    ]);
  });

  it("comes back from a status by its text, with the code that was sent", () => {
    expect(etcdErrorFromStatus(5, "etcdserver: requested lease not found")).toMatchObject({
      kind: "LeaseNotFound",
      code: 5,
    });
    expect(etcdErrorFromStatus(2, "etcdserver: requested lease not found")?.code).toBe(Code.Unknown);
    expect(etcdErrorFromStatus(2, "something else")).toBeUndefined();
  });

  it("keeps its cause", () => {
    const cause = new Error("inner");
    expect(new EtcdError("NoLeader", { cause }).cause).toBe(cause);
  });

  it("texts are unique, so that a text means one kind", () => {
    const texts = Object.values(errorTable).map(([, text]) => text);
    expect(new Set(texts).size).toBe(texts.length);
  });

  it("code names are Go's", () => {
    expect([0, 7, 16, 42].map(codeName)).toEqual(["OK", "PermissionDenied", "Unauthenticated", "Code(42)"]);
  });

  it.skipIf(!hasFacts)("the table is that of the facts", () => {
    const section = fs.readFileSync(factsFile, "utf8").split(/^## /m)[1] ?? "";
    const rows = [...section.matchAll(/^\|\s*\**(\d+)\**[^|]*\|\s*`([^`]+)`/gm)].map((m) => [m[2], Number(m[1])]);
    expect(rows.length).toBeGreaterThan(60);
    const ours = new Map<string, number>(Object.values(errorTable).map(([code, text]) => [text, code]));
    for (const [text, code] of rows) expect(ours.get(text as string), String(text)).toBe(code);
  });
});
