// get, put and del as requests: from arguments and flags to the message, with the checks that come before any call. The
// command line and the lines of a transaction both come through here.
import type { DeleteRangeRequest, Init, PutRequest, RangeRequest } from "@etcd-ts/client/wire";
import type { FlagSet } from "../cli/flags.ts";
import { toBytes } from "../go/bytes.ts";
import { quote } from "../go/quote.ts";
import { ParseError, parseInt64 } from "../go/strconv.ts";
import { BAD_FEATURE, badArgs, ExitError } from "../exit.ts";
import { fromKeyRange, type KeyRange, prefixRange } from "../keys.ts";

const ORDERS: Readonly<Record<string, number>> = { "": 0, ASCEND: 1, DESCEND: 2 };
const TARGETS: Readonly<Record<string, number>> = { "": 0, KEY: 0, VERSION: 1, CREATE: 2, MODIFY: 3, VALUE: 4 };

/** @throws ExitError */
export function rangeRequest(flags: FlagSet, args: readonly string[]): Init<RangeRequest> {
  const [key, end] = args;
  if (key === undefined) throw badArgs("get command needs one argument as key and an optional argument as range_end");
  const prefix = flags.bool("prefix");
  const fromKey = flags.bool("from-key");
  refuseBoth(prefix, fromKey, "`--prefix` and `--from-key`");
  refuseBoth(flags.bool("keys-only"), flags.bool("count-only"), "`--keys-only` and `--count-only`");
  const consistency = flags.string("consistency");
  if (consistency !== "s" && consistency !== "l") {
    throw new ExitError(BAD_FEATURE, `unknown consistency flag ${quote(consistency)}`);
  }
  if (end !== undefined) refuseRangeEnd(prefix || fromKey);
  const order = ORDERS[flags.string("order").toUpperCase()];
  if (order === undefined) throw new ExitError(BAD_FEATURE, `bad sort order ${flags.string("order")}`);
  const target = TARGETS[flags.string("sort-by").toUpperCase()];
  if (target === undefined) throw new ExitError(BAD_FEATURE, `bad sort target ${flags.string("sort-by")}`);
  return {
    ...keyRange(key, end, prefix, fromKey),
    limit: flags.number("limit"),
    revision: Math.max(flags.number("rev"), 0),
    // Keys come in ascending order anyway; asking for it would make the server sort.
    sortOrder: target === 0 && order === 1 ? 0 : order,
    sortTarget: target,
    serializable: consistency === "s",
    keysOnly: flags.bool("keys-only"),
    countOnly: flags.bool("count-only"),
  };
}

/**
 * @param readValue the value when no argument holds it; undefined or empty when there is none there either
 * @throws ExitError
 */
export async function putRequest(
  flags: FlagSet,
  args: readonly string[],
  readValue: () => Promise<Uint8Array | undefined>,
): Promise<Init<PutRequest>> {
  const [key, argument] = args;
  const missing = badArgs("put command needs 1 argument and input from stdin or 2 arguments");
  if (key === undefined) throw missing;
  const ignoreValue = flags.bool("ignore-value");
  if (ignoreValue && argument !== undefined) {
    throw badArgs("put command needs only 1 argument when 'ignore-value' is set");
  }
  let value: Uint8Array = new Uint8Array(0);
  if (argument !== undefined) value = toBytes(argument);
  else if (!ignoreValue) {
    value = (await readValue()) ?? value;
    if (value.length === 0) throw missing;
  }
  return {
    key: toBytes(key),
    value,
    lease: parseLeaseId(flags.string("lease"), "lease ID"),
    prevKv: flags.bool("prev-kv"),
    ignoreValue,
    ignoreLease: flags.bool("ignore-lease"),
  };
}

/** @param remark told once when a range is deleted without --range @throws ExitError */
export function deleteRequest(
  flags: FlagSet,
  args: readonly string[],
  remark: (line: string) => void,
): Init<DeleteRangeRequest> {
  const [key, end] = args;
  if (key === undefined || args.length > 2) {
    throw badArgs("del command needs one argument as key and an optional argument as range_end");
  }
  const prefix = flags.bool("prefix");
  const fromKey = flags.bool("from-key");
  refuseBoth(prefix, fromKey, "`--prefix` and `--from-key`");
  if (end !== undefined) {
    refuseRangeEnd(prefix || fromKey);
    if (!flags.bool("range")) {
      remark(
        "In etcd v3.6, the operation will be suspended for a few seconds to provide the user time to verify range.",
      );
    }
  }
  return { ...keyRange(key, end, prefix, fromKey), prevKv: flags.bool("prev-kv") };
}

/** A lease id as it is typed: hexadecimal, signed. @throws ExitError 128 */
export function parseLeaseId(text: string, what: string): bigint {
  try {
    return parseInt64(text, 16);
  } catch (error) {
    if (!(error instanceof ParseError)) throw error;
    throw badArgs(`bad ${what} (${error.message}), expecting ID in Hex`);
  }
}

export function keyRange(key: string, end: string | undefined, prefix: boolean, fromKey: boolean): KeyRange {
  if (prefix) return prefixRange(toBytes(key));
  if (fromKey) return fromKeyRange(toBytes(key));
  return { key: toBytes(key), rangeEnd: end === undefined ? new Uint8Array(0) : toBytes(end) };
}

function refuseBoth(one: boolean, other: boolean, names: string): void {
  if (one && other) throw badArgs(`${names} cannot be set at the same time, choose one`);
}

function refuseRangeEnd(hasRangeFlag: boolean): void {
  if (hasRangeFlag) {
    throw badArgs("too many arguments, only accept one argument when `--prefix` or `--from-key` is set");
  }
}
