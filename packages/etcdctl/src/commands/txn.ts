// txn: compares and two lists of requests, read line by line from standard input.
import { type Compare, type Init, KV, type RequestOp } from "@etcd-ts/client/wire";
import { FlagError, type FlagSpec, FlagSet, saturate } from "../cli/flags.ts";
import { delFlags, getFlags, putFlags, root } from "../cli/tree.ts";
import type { CommandContext } from "../context.ts";
import { badArgs, ExitError, INVALID_INPUT } from "../exit.ts";
import { toBytes } from "../go/bytes.ts";
import { quote, unquoteInside } from "../go/quote.ts";
import { ParseError, parseInt64 } from "../go/strconv.ts";
import { splitWords } from "../go/words.ts";
import { deleteRequest, putRequest, rangeRequest } from "./requests.ts";

const invalid = (message: string): ExitError => new ExitError(INVALID_INPUT, message);

/** `txn`: three parts, each ended by an empty line; the end of input before that is an error. */
export async function runTxn(context: CommandContext, args: readonly string[]): Promise<void> {
  if (args.length > 0) throw badArgs("txn command does not accept argument");
  const { flags, io } = context;
  await using connected = await context.connect();
  const { client, printer } = connected;
  const lines = io.input.lines()[Symbol.asyncIterator]();
  const prompt = (text: string): void => {
    if (flags.bool("interactive")) io.out.write(`${text}\n`);
  };
  const readPart = async <T>(parse: (line: string) => T | Promise<T>): Promise<T[]> => {
    const items: T[] = [];
    for (;;) {
      const next = await lines.next();
      if (next.done) throw invalid("EOF");
      const line = next.value.trim();
      if (line === "") return items;
      items.push(await parse(line));
    }
  };
  const complain = (text: string): void => io.err.write(text);
  prompt("compares:");
  const compare = await readPart(parseCompare);
  prompt("success requests (get, put, del):");
  const success = await readPart((line) => parseRequest(line, complain));
  prompt("failure requests (get, put, del):");
  const failure = await readPart((line) => parseRequest(line, complain));
  printer.print("txn", await client.call(KV.methods.txn, { compare, success, failure }));
}

const RESULTS: Readonly<Record<string, number>> = { "=": 0, ">": 1, "<": 2, "!=": 3 };

/** `TARGET("KEY") OP "VALUE"` @throws ExitError 3 */
export function parseCompare(line: string): Init<Compare> {
  const paren = line.indexOf("(");
  if (paren < 0) throw invalid(`malformed comparison: ${line}`);
  const target = line.slice(0, paren);
  const { key, operator, value, isWhole } = scanCompare(line.slice(paren + 1));
  if (!isWhole) {
    throw invalid(`malformed comparison: ${line}; got ${target}(${quote(key)}) ${operator} ${quote(value)}`);
  }
  const operand = compareTarget(target, value, line);
  const result = RESULTS[operator];
  if (result === undefined) throw invalid(`malformed comparison: ${line} (unknown operator ${operator})`);
  return { key: toBytes(key), result, ...operand };
}

function compareTarget(target: string, value: string, line: string): Pick<Init<Compare>, "target" | "targetUnion"> {
  try {
    switch (target) {
      case "ver":
      case "version":
        return { target: 0, targetUnion: { kind: "version", value: saturate(parseInt64(value, 10)) } };
      case "c":
      case "create":
        return { target: 1, targetUnion: { kind: "createRevision", value: saturate(parseInt64(value, 10)) } };
      case "m":
      case "mod":
        return { target: 2, targetUnion: { kind: "modRevision", value: saturate(parseInt64(value, 10)) } };
      case "val":
      case "value":
        return { target: 3, targetUnion: { kind: "value", value: toBytes(value) } };
      case "lease":
        return { target: 4, targetUnion: { kind: "lease", value: parseInt64(value, 16) } };
    }
  } catch (error) {
    if (error instanceof ParseError) throw invalid(`invalid txn compare request: ${line}`);
    throw error;
  }
  throw invalid(`malformed comparison: ${line} (unknown target ${target})`);
}

interface ScannedCompare {
  readonly key: string;
  readonly operator: string;
  readonly value: string;
  /** False: only what came before the fault is there. */
  readonly isWhole: boolean;
}

/** Reads `"KEY") OP "VALUE"`; blanks are needed around OP and allowed before the strings. */
function scanCompare(text: string): ScannedCompare {
  const [key, afterKey] = scanQuoted(text);
  if (key === undefined) return { key: "", operator: "", value: "", isWhole: false };
  const operator = /^\)[ \t]+([^ \t]+)/.exec(afterKey);
  if (!operator) return { key, operator: "", value: "", isWhole: false };
  const rest = afterKey.slice(operator[0].length);
  const [value] = /^[ \t]/.test(rest) ? scanQuoted(rest) : [undefined];
  return { key, operator: operator[1] as string, value: value ?? "", isWhole: value !== undefined };
}

/** A quoted string at the start, and what follows it. */
function scanQuoted(text: string): readonly [string | undefined, string] {
  const start = text.replace(/^[ \t]+/, "");
  const raw = /^`([^`]*)`/.exec(start);
  if (raw) return [raw[1], start.slice(raw[0].length)];
  const match = /^"((?:[^"\\]|\\.)*)"/.exec(start);
  if (!match) return [undefined, start];
  return [unquoteInside(match[1] as string), start.slice(match[0].length)];
}

/** What is added for people at a terminal has no place in a transaction. */
const requestFlags: Readonly<Record<"get" | "put" | "del", readonly FlagSpec[]>> = {
  get: getFlags.filter(({ own }) => !own),
  put: putFlags.filter(({ own }) => !own),
  del: delFlags.filter(({ own }) => !own),
};

/**
 * A get, put or del with its flags. @param complain takes the usage of a request whose flags are wrong, and remarks
 * @throws ExitError
 */
export async function parseRequest(line: string, complain: (text: string) => void): Promise<Init<RequestOp>> {
  const words = splitWords(line);
  if (words === undefined) throw invalid("invalid syntax");
  if (words.length < 2) throw invalid(`invalid txn compare request: ${line}`);
  const [first, ...rest] = words as [string, ...string[]];
  const name = (["put", "get", "del"] as const).find((candidate) => candidate.startsWith(first));
  if (name === undefined || first === "") throw invalid(`invalid txn request: ${line}`);
  const flags = new FlagSet(requestFlags[name]);
  try {
    flags.parse(rest);
  } catch (error) {
    if (!(error instanceof FlagError)) throw error;
    const { requestUsage } = await import("../cli/help.ts");
    const usage = root.subcommands?.find((command) => command.name === name)?.usage ?? "";
    complain(requestUsage(`${name} ${usage}`, name, requestFlags[name]));
    throw invalid(`invalid txn request: ${line}`);
  }
  switch (name) {
    case "get":
      return { request: { kind: "requestRange", value: rangeRequest(flags, flags.args) } };
    case "put": {
      const value = await putRequest(flags, flags.args, () => Promise.resolve(undefined));
      return { request: { kind: "requestPut", value } };
    }
    case "del": {
      const value = deleteRequest(flags, flags.args, (remark) => complain(`${remark}\n`));
      return { request: { kind: "requestDeleteRange", value } };
    }
  }
}
