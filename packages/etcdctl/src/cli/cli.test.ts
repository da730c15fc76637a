import { expect, test } from "vitest";
import { etcdctl, header } from "../testing/harness.ts";
import { commandName, type CommandPath, type CommandSpec } from "./command.ts";
import { editDistance, findCommand } from "./find.ts";
import { FlagSet, type FlagSpec } from "./flags.ts";
import { helpText, usageLine } from "./help.ts";
import { root } from "./tree.ts";

const specs: readonly FlagSpec[] = [
  { name: "write-out", short: "w", type: "string", default: "simple", usage: "" },
  { name: "interactive", short: "i", type: "bool", usage: "" },
  { name: "listen", short: "l", type: "bool", usage: "" },
  { name: "limit", type: "int64", usage: "" },
  { name: "size", type: "uint64", usage: "" },
  { name: "time", type: "duration", default: "2s", usage: "" },
  { name: "endpoints", type: "stringSlice", default: "127.0.0.1:2379", usage: "" },
];

const parse = (...argv: string[]): FlagSet => {
  const flags = new FlagSet(specs);
  flags.parse(argv);
  return flags;
};

test("flags and arguments mix; -- ends flags", () => {
  const flags = parse("a", "-w", "json", "b", "--limit=0x10", "-", "--", "-i", "--");
  expect(flags.args).toEqual(["a", "b", "-", "-i", "--"]);
  expect([flags.string("write-out"), flags.number("limit"), flags.bool("interactive")]).toEqual(["json", 16, false]);
});

test("shorthands take their value in all forms, and may be joined", () => {
  expect([["-wjson"], ["-w=json"], ["-w", "json"]].map((argv) => parse(...argv).string("write-out"))).toEqual([
    "json",
    "json",
    "json",
  ]);
  const flags = parse("-ilw", "x", "y");
  expect([flags.bool("interactive"), flags.bool("listen"), flags.string("write-out"), flags.args]).toEqual([
    true,
    true,
    "x",
    ["y"],
  ]);
});

test("a bool takes a value only with =", () => {
  const flags = parse("--interactive", "false");
  expect([flags.bool("interactive"), flags.args]).toEqual([true, ["false"]]);
  expect(parse("--interactive=F").bool("interactive")).toBe(false);
});

test("a list adds up, the first use replaces the default", () => {
  expect(parse().list("endpoints")).toEqual(["127.0.0.1:2379"]);
  const flags = parse("--endpoints=a,b", '--endpoints="c,d",e');
  expect(flags.list("endpoints")).toEqual(["a", "b", "c,d", "e"]);
  expect(parse("--endpoints=").list("endpoints")).toEqual([]);
});

test.each([
  [["--nosuch"], "unknown flag: --nosuch"],
  [["--nosuch=1"], "unknown flag: --nosuch"],
  [["-x"], "unknown shorthand flag: 'x' in -x"],
  [["-ixy"], "unknown shorthand flag: 'x' in -xy"],
  [["--limit"], "flag needs an argument: --limit"],
  [["-iw"], "flag needs an argument: 'w' in -w"],
  [["--=x"], "bad flag syntax: --=x"],
  [["---x"], "bad flag syntax: ---x"],
  [["--limit=x"], 'invalid argument "x" for "--limit" flag: strconv.ParseInt: parsing "x": invalid syntax'],
  [["--size=-1"], 'invalid argument "-1" for "--size" flag: strconv.ParseUint: parsing "-1": invalid syntax'],
  [["--time=5"], 'invalid argument "5" for "--time" flag: time: missing unit in duration "5"'],
  [["-i=no"], 'invalid argument "no" for "-i, --interactive" flag: strconv.ParseBool: parsing "no": invalid syntax'],
  [
    ['--endpoints="a'],
    'invalid argument "\\"a" for "--endpoints" flag: parse error on line 1, column 3: extraneous or missing " in quoted-field',
  ],
  [
    ['--endpoints=a"b'],
    'invalid argument "a\\"b" for "--endpoints" flag: parse error on line 1, column 2: bare " in non-quoted-field',
  ],
])("%j is refused", (argv, message) => expect(() => parse(...argv)).toThrow(message));

test("text of flags is Go's", () => {
  const flags = parse("--time=90s", "--endpoints=a,b");
  expect(["time", "endpoints", "interactive", "limit"].map((name) => flags.text(name))).toEqual([
    "1m30s",
    "[a,b]",
    "false",
    "0",
  ]);
});

const find = (...argv: string[]): readonly [string, readonly string[]] => {
  const { path, args } = findCommand(root, argv);
  return [commandName(path), args];
};

test("commands are found behind flags and by any clear beginning", () => {
  expect(find("get", "k")).toEqual(["get", ["k"]]);
  expect(find("-w", "json", "le", "gr", "10")).toEqual(["lease grant", ["-w", "json", "10"]]);
  expect(find("--hex", "get", "get")).toEqual(["get", ["--hex", "get"]]);
  expect(find("lease", "nothing")).toEqual(["lease", ["nothing"]]);
  expect(find("endpoint", "--cluster", "health")).toEqual(["endpoint health", ["--cluster"]]);
  expect(find("--", "get")).toEqual(["etcdctl", ["--", "get"]]);
});

test("editDistance()", () => {
  expect([editDistance("put", "putt"), editDistance("auth", "putt"), editDistance("", "abc")]).toEqual([1, 2, 3]);
});

test("an unknown command is refused twice, with what may have been meant", async () => {
  const { exit, err, out } = await etcdctl(["putt", "a"]);
  const message = 'Error: unknown command "putt" for "etcdctl"\n\nDid you mean this?\n\tput\n\tauth\n\n';
  expect({ exit, err, out }).toEqual({
    exit: 1,
    err: `${message}Run 'etcdctl --help' for usage.\n${message}`,
    out: "",
  });
});

test("a wrong flag is refused around the usage", async () => {
  const { exit, err, out } = await etcdctl(["get", "--nosuch"]);
  expect({ exit, err }).toEqual({ exit: 1, err: "Error: unknown flag: --nosuch\n\nError: unknown flag: --nosuch\n" });
  expect(out).toMatch(/^NAME:\n\tget - /);
});

test.each([[[]], [["lease"]], [["lease", "nothing"]], [["get", "-h"]], [["help", "lease", "grant"]], [["help"]]])(
  "%j prints help and succeeds",
  async (argv) => {
    const { exit, out, err } = await etcdctl(argv);
    expect({ exit, err }).toEqual({ exit: 0, err: "" });
    expect(out).toMatch(/^NAME:\n\t/);
  },
);

test("help of a topic that there is not", async () => {
  const { exit, err, out } = await etcdctl(["help", "nosuch"]);
  expect({ exit, err }).toEqual({ exit: 0, err: "Unknown help topic [`nosuch`]\n" });
  expect(out).toContain("COMMANDS:");
});

function* allPaths(command: CommandSpec, parents: readonly CommandSpec[] = []): Generator<CommandPath> {
  yield { command, parents };
  for (const sub of command.subcommands ?? []) yield* allPaths(sub, [...parents, command]);
}

test.each([...allPaths(root)].map((path) => [commandName(path), path] as const))(
  "help of %s has examples first, in columns of tab stops",
  (_name, path) => {
    const text = helpText(path);
    expect(text.indexOf("EXAMPLES:")).toBeGreaterThan(0);
    expect(text.indexOf("EXAMPLES:")).toBeLessThan(text.indexOf("USAGE:"));
    expect(path.command.examples.length).toBeGreaterThan(0);
    expect(usageLine(path)).toMatch(/^etcdctl.* \[flags\]$/);
    expect(text.endsWith("\n")).toBe(true);
  },
);

test("every command loads", async () => {
  for (const { command } of allPaths(root)) {
    if (command.subcommands) continue;
    expect(typeof (await command.load?.()), command.name).toBe("function");
  }
});

test("ETCDCTL_API chooses the tool", async () => {
  expect(await etcdctl(["version"], { env: { ETCDCTL_API: "4" } })).toMatchObject({
    exit: 1,
    err: "unsupported API version: 4\n",
    out: "",
  });
  const good = await etcdctl(["version"], { env: { ETCDCTL_API: "3", ETCDCTL_NOSUCH: "x" } });
  expect(good).toMatchObject({ exit: 0, err: "", out: "etcdctl version: 3.5.16\nAPI version: 3.5\n" });
});

const answers = { Range: () => ({ header: header(1) }) };

test("the environment sets global flags; what does not parse is passed over", async () => {
  const env = { ETCDCTL_WRITE_OUT: "json", ETCDCTL_COMMAND_TIMEOUT: "soon", ETCDCTL_HEX: "x", ETCDCTL_CERT: "" };
  const { out, err, exit } = await etcdctl(["get", "k"], { env, answers });
  expect({ err, exit }).toEqual({ err: "", exit: 0 });
  expect(out).toContain('{"header":{"cluster_id":');
});

test("a variable and a flag for the same thing end the program", async () => {
  const { exit, err, calls } = await etcdctl(["get", "k", "-w", "json"], {
    env: { ETCDCTL_WRITE_OUT: "simple" },
    answers,
  });
  expect({ exit, calls }).toEqual({ exit: 1, calls: [] });
  expect(JSON.parse(err)).toMatchObject({ level: "fatal", "environment-variable": "ETCDCTL_WRITE_OUT" });
});

test("an unknown variable is warned of", async () => {
  const { exit, err } = await etcdctl(["get", "k"], { env: { ETCDCTL_NOSUCH: "x", ETCDCTL_WATCH_KEY: "k" }, answers });
  expect(exit).toBe(0);
  expect(JSON.parse(err)).toEqual({
    level: "warn",
    ts: "2026-01-02T03:04:05.123456Z",
    caller: "flags/flag.go:93",
    msg: "unrecognized environment variable",
    "environment-variable": "ETCDCTL_NOSUCH=x",
  });
});

test("--debug shows the settings, sorted", async () => {
  const { err } = await etcdctl(["get", "k", "--debug", "--endpoints=a,b"], { answers });
  const lines = err.trimEnd().split("\n");
  expect(lines).toHaveLength(18);
  expect(lines.toSorted()).toEqual(lines);
  expect(lines).toContain("ETCDCTL_ENDPOINTS=[a,b]");
  expect(lines).toContain("ETCDCTL_KEEPALIVE_TIME=2s");
});
