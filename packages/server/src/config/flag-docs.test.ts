// Every flag in all its forms: the page that lists them, etcd's own list, and what each form makes of a value.
import fs from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { flagDocsText } from "./flag-docs.ts";
import { envName, type FlagSpec, flagSpecs } from "./flags.ts";
import { applyEnvironment, FlagSet, type FlagValue, flagsFromFile, parseArguments } from "./parse.ts";

it("docs/flags.md is what the table of flags says", () => {
  const file = fileURLToPath(new URL("../../../../docs/flags.md", import.meta.url));
  if (process.env["UPDATE_GOLDEN"]) fs.writeFileSync(file, flagDocsText());
  expect(fs.readFileSync(file, "utf8")).toBe(flagDocsText());
});

/** Flags that etcd does not have. */
const OURS = ["experimental-grpc-transport"];

describe("the table of flags", () => {
  const facts = fileURLToPath(new URL("../../../../../shared/facts/server-flags.md", import.meta.url));
  const hasFacts = fs.existsSync(facts);
  it.skipIf(!hasFacts)("has every flag of etcd, with its variable and its key in a file (needs ../shared)", () => {
    const text = fs.readFileSync(facts, "utf8");
    const rows = [...text.matchAll(/^\| `--([a-z0-9-]+)` \| [^|]+ \| [^|]+ \| `(ETCD_[A-Z0-9_]+)` \| ([^|]+) \|/gm)];
    expect(rows.length).toBeGreaterThan(100);
    const theirs = rows.map(([, name, variable, key = ""]) => {
      const nested = /`([a-z-]+): \{([a-z-]+): \.\.\.\}`/.exec(key);
      const plain = /^`([a-z-]+)`/.exec(key);
      const fileKey = nested ? `${nested[1]}.${nested[2]}` : plain ? plain[1] : /^(none|—)/.test(key) ? null : name;
      return { name, variable, fileKey };
    });
    const ours = flagSpecs
      .filter(({ name, kind }) => kind !== "ignored" && !OURS.includes(name))
      .map(({ name, fileKey }) => ({ name, variable: envName(name), fileKey: fileKey === undefined ? name : fileKey }));
    const byName = (a: { name?: string | undefined }, b: { name?: string | undefined }) =>
      String(a.name) < String(b.name) ? -1 : 1;
    expect(ours.sort(byName)).toEqual(theirs.sort(byName));
  });
});

/** A value other than the default: as the command line writes it, as a file does, and what it becomes. */
function sampleOf({ kind, fallback, choices }: FlagSpec): { text: string; inFile: unknown; value: FlagValue } {
  const url = "http://127.0.0.1:12345";
  switch (kind) {
    case "bool":
      return { text: String(fallback !== "true"), inFile: fallback !== "true", value: fallback !== "true" };
    case "int":
    case "int64":
    case "uint":
    case "uint32":
    case "uint64":
      return { text: "77", inFile: 77, value: 77 };
    case "duration":
      return { text: "1m7s", inFile: 67_000_000_000, value: 67_000 };
    case "urls":
    case "cors":
      return { text: url, inFile: url, value: [url] };
    case "strings":
    case "uniqueStrings":
      return { text: "a,b", inFile: ["a", "b"], value: ["a", "b"] };
    case "enum": {
      const other = choices?.find((choice) => choice !== fallback) ?? "";
      return { text: other, inFile: other, value: other };
    }
    default:
      return { text: "sample", inFile: "sample", value: "sample" };
  }
}

function takenBy(flags: FlagSet, { name, kind }: FlagSpec): FlagValue {
  switch (kind) {
    case "bool":
      return flags.bool(name);
    case "string":
    case "enum":
      return flags.text(name);
    case "urls":
    case "cors":
    case "strings":
    case "uniqueStrings":
      return flags.list(name);
    default:
      return flags.number(name);
  }
}

describe("each flag is taken", () => {
  const real = flagSpecs.filter(({ kind }) => kind !== "ignored");

  it.each(real.map((spec) => [spec.name, spec] as const))("--%s on the command line", (name, spec) => {
    const { text, value } = sampleOf(spec);
    const forms = [[`--${name}=${text}`], [`-${name}=${text}`], ...(spec.kind === "bool" ? [] : [[`--${name}`, text]])];
    for (const args of forms) {
      const { flags, rest } = parseArguments(args);
      expect([takenBy(flags, spec), flags.isSet(name), rest]).toEqual([value, true, []]);
    }
  });

  it.each(real.filter(({ name }) => name !== "version").map((spec) => [envName(spec.name), spec] as const))(
    "%s as a variable",
    (variable, spec) => {
      const { text, value } = sampleOf(spec);
      const flags = new FlagSet();
      const { notes, error } = applyEnvironment(flags, { [variable]: text });
      expect(error).toBeUndefined();
      expect(notes.map(({ message }) => message)).toEqual(["recognized and used environment variable"]);
      expect(takenBy(flags, spec)).toEqual(value);
    },
  );

  it.each(real.filter(({ fileKey }) => fileKey !== null).map((spec) => [spec.fileKey ?? spec.name, spec] as const))(
    "%s in a file",
    (key, spec) => {
      const sample = sampleOf(spec);
      // The one list that a file writes as a text.
      const inFile = spec.name === "host-whitelist" ? sample.text : sample.inFile;
      const content = key.split(".").reduceRight((inner: unknown, step) => ({ [step]: inner }), inFile);
      expect(takenBy(flagsFromFile(content), spec)).toEqual(sample.value);
    },
  );

  it.each(real.filter(({ fileKey }) => fileKey === null).map((spec) => [spec.name, spec] as const))(
    "%s has no key in a file, and is ignored there",
    (name, spec) => {
      const flags = flagsFromFile({ [name]: sampleOf(spec).inFile });
      expect([takenBy(flags, spec), flags.isSet(name)]).toEqual([takenBy(new FlagSet(), spec), false]);
    },
  );

  it("whose name is of long ago, in any form, without a word", () => {
    for (const { name, kind } of flagSpecs) {
      if (kind === "ignored") expect(parseArguments([`--${name}`, `--${name}=x`]).rest).toEqual([]);
    }
  });
});
