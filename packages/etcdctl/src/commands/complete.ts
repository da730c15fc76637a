// What the completion scripts ask: `__complete WORDS...`, the last word being the one that is typed. Knows commands and
// flags by itself, and asks the cluster, briefly, for keys, users, roles, leases and members.
import { Auth, Cluster, KV, Lease } from "@etcd-ts/client/wire";
import { type CommandPath, commandName, inheritedFlags, localFlags } from "../cli/command.ts";
import { findCommand } from "../cli/find.ts";
import { type FlagSpec, FlagSet } from "../cli/flags.ts";
import type { ContextMaker } from "../cli/make-context.ts";
import { root } from "../cli/tree.ts";
import type { CallClient } from "../context.ts";
import { fromBytes, toBytes } from "../go/bytes.ts";
import { hex16, hexId } from "../go/strconv.ts";
import type { Io } from "../io.ts";
import { prefixRange } from "../keys.ts";

const CALL_TIMEOUT_MS = 1_000;
const KEYS_MAX = 200;

interface Candidates {
  readonly words: readonly (readonly [word: string, description: string])[];
  /** More may follow the word: no blank after it. */
  readonly noSpace?: boolean;
}

const none: Candidates = { words: [] };

/** Values of flags that are one of a few. */
const choices: Readonly<Record<string, readonly string[]>> = {
  "write-out": ["simple", "json", "fields", "table", "protobuf", "jsonl", "yaml"],
  order: ["ASCEND", "DESCEND"],
  "sort-by": ["CREATE", "KEY", "MODIFY", "VALUE", "VERSION"],
  consistency: ["l", "s"],
  load: ["s", "m", "l", "xl"],
  errors: ["text", "json"],
  color: ["auto", "always", "never"],
};

/** What the arguments of a command are, one by one; the last also stands for those that follow. */
const argumentKinds: Readonly<
  Record<string, readonly ("key" | "user" | "role" | "lease" | "member" | "permission")[]>
> = {
  get: ["key", "key"],
  put: ["key"],
  del: ["key", "key"],
  watch: ["key", "key"],
  "lease revoke": ["lease"],
  "lease timetolive": ["lease"],
  "lease keep-alive": ["lease"],
  "member remove": ["member"],
  "member update": ["member"],
  "member promote": ["member"],
  "move-leader": ["member"],
  "user get": ["user"],
  "user delete": ["user"],
  "user passwd": ["user"],
  "user grant-role": ["user", "role"],
  "user revoke-role": ["user", "role"],
  "role get": ["role"],
  "role delete": ["role"],
  "role grant-permission": ["role", "permission", "key", "key"],
  "role revoke-permission": ["role", "key", "key"],
};

export async function runComplete(io: Io, contextOf: ContextMaker): Promise<void> {
  const words = io.argv.slice(1);
  const typed = words.at(-1) ?? "";
  const quiet: Io = { ...io, err: { isTerminal: false, write: () => {} } };
  const { words: found, noSpace } = await candidates(quiet, contextOf, words.slice(0, -1), typed);
  const hasDescriptions = io.argv[0] === "__complete";
  for (const [word, description] of found) {
    if (!word.startsWith(typed)) continue;
    io.out.write(hasDescriptions && description !== "" ? `${word}\t${description}\n` : `${word}\n`);
  }
  io.out.write(noSpace ? ":nospace\n" : ":done\n");
}

async function candidates(
  io: Io,
  contextOf: ContextMaker,
  before: readonly string[],
  typed: string,
): Promise<Candidates> {
  const { path, args } = findSafely(before);
  const specs = [...localFlags(path), ...inheritedFlags(path)];
  const flagValue = valueWanted(specs, before.at(-1), typed);
  if (flagValue) {
    const { spec, written } = flagValue;
    if (spec.name === "endpoints") return endpoints(io, contextOf, written);
    return { words: (choices[spec.name] ?? []).map((word) => [`${written}${word}`, ""] as const) };
  }
  if (typed.startsWith("-")) return { words: specs.map(({ name, usage }) => [`--${name}`, usage] as const) };
  if (path.command.subcommands) {
    return { words: path.command.subcommands.map(({ name, short }) => [name, short] as const) };
  }
  const flags = new FlagSet(specs);
  try {
    flags.parse(args);
  } catch {
    return none;
  }
  const kinds = argumentKinds[commandName(path)];
  const kind = kinds?.[flags.args.length];
  if (kind === "permission") return { words: ["read", "write", "readwrite"].map((word) => [word, ""] as const) };
  if (kind === undefined) return none;
  try {
    await using connected = await contextOf(flags, io).connect();
    return await ask[kind](connected.client, typed);
  } catch {
    return none;
  }
}

function findSafely(before: readonly string[]): { path: CommandPath; args: readonly string[] } {
  try {
    return findCommand(root, before);
  } catch {
    return { path: { command: root, parents: [] }, args: before };
  }
}

/** The flag whose value is being typed, and what of the word is not the value. */
function valueWanted(
  specs: readonly FlagSpec[],
  previous: string | undefined,
  typed: string,
): { spec: FlagSpec; written: string } | undefined {
  const equals = /^--([^=]+)=/.exec(typed);
  const long = equals?.[1] ?? /^--([^=]+)$/.exec(previous ?? "")?.[1];
  const short = /^-([^-])$/.exec(previous ?? "")?.[1];
  const spec = specs.find(({ name, short: letter }) => name === long || (letter !== undefined && letter === short));
  if (!spec || (spec.type === "bool" && !equals)) return undefined;
  return { spec, written: equals?.[0] ?? "" };
}

const options = { timeoutMs: CALL_TIMEOUT_MS };

/** The client URLs of the members, to be listed one after the other. */
async function endpoints(io: Io, contextOf: ContextMaker, written: string): Promise<Candidates> {
  try {
    const flags = new FlagSet(inheritedFlags({ command: root, parents: [root] }));
    await using connected = await contextOf(flags, io).connect();
    const { members } = await connected.client.call(Cluster.methods.memberList, {}, options);
    const words = members.flatMap(({ name, clientUrls }) =>
      clientUrls.map((url) => [`${written}${url}`, name] as const),
    );
    return { words, noSpace: true };
  } catch {
    return none;
  }
}

const ask: Readonly<
  Record<"key" | "user" | "role" | "lease" | "member", (client: CallClient, typed: string) => Promise<Candidates>>
> = {
  async key(client, typed) {
    const range = prefixRange(toBytes(typed));
    const request = { ...range, keysOnly: true, limit: KEYS_MAX, serializable: true };
    const { kvs } = await client.call(KV.methods.range, request, options);
    return keyCandidates(
      kvs.map(({ key }) => fromBytes(key)),
      typed,
    );
  },
  async user(client) {
    const { users } = await client.call(Auth.methods.userList, {}, options);
    return { words: users.map((user) => [user, ""] as const) };
  },
  async role(client) {
    const { roles } = await client.call(Auth.methods.roleList, {}, options);
    return { words: roles.map((role) => [role, ""] as const) };
  },
  async lease(client) {
    const { leases } = await client.call(Lease.methods.leaseLeases, {}, options);
    return { words: leases.map(({ id }) => [hex16(id), ""] as const) };
  },
  async member(client) {
    const { members } = await client.call(Cluster.methods.memberList, {}, options);
    return { words: members.map(({ id, name }) => [hexId(id), name] as const) };
  },
};

/** Keys, cut behind the next `/` where several go on the same way. */
export function keyCandidates(keys: readonly string[], typed: string): Candidates {
  const steps = new Map<string, number>();
  for (const key of keys) {
    const slash = key.indexOf("/", typed.length);
    const step = slash < 0 ? key : key.slice(0, slash + 1);
    steps.set(step, (steps.get(step) ?? 0) + 1);
  }
  const words = [...steps].map(([step, count]) => [step, step.endsWith("/") ? `${count} keys` : ""] as const);
  return { words, noSpace: words.some(([step]) => step.endsWith("/")) };
}
