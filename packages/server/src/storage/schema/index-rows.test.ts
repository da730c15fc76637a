import { KeyValue } from "@etcd-ts/client/wire";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { compareBytes, type KeyString, keyBytes, keyString } from "../../lib/bytes.ts";
import { KEY_BYTES_MAX } from "../backend/index.ts";
import {
  decodeLiveRow,
  decodePastRow,
  encodeInlineLiveRow,
  encodeLiveRow,
  encodePastRow,
  isLongKeyForPast,
  isLongLiveKey,
  leasedKey,
  liveGroupEnd,
  liveGroupStart,
  liveKey,
  liveKeyOfLeasedKey,
  mainOfPastKey,
  pastBound,
  pastGroupEnd,
  pastKey,
  pastPrefix,
  pastPrefixEnd,
  prefixOfPastKey,
  SHORT_KEY_BYTES_MAX,
  subOfPastKey,
  userKeyOfPastPrefix,
} from "./index-rows.ts";
import { encodeKeyValue, keyOfKeyValue, readKeyValue } from "./key-value.ts";
import {
  isTombstoneKey,
  mainOfRevisionKey,
  readCounter,
  revisionKey,
  subOfRevisionKey,
  tombstoneKey,
  writeCounter,
} from "./revision.ts";
import { VarintCursor, varintLength, writeVarint } from "./varint.ts";

/** Keys of every length around the bounds, made of the bytes that could go wrong, sharing long beginnings. */
const userKey = fc
  .tuple(
    fc.constantFrom("", "a", "\0", "\xff", "x".repeat(900), "\0".repeat(900)),
    fc.constantFrom("", "x".repeat(1000), "x".repeat(1036), "x".repeat(1037), "\0".repeat(60), "\0".repeat(120)),
    fc.array(fc.constantFrom("\0", "\x01", "\x02", "a", "\xff"), { maxLength: 4 }),
  )
  .map((parts) => keyBytes(parts.flat().join("") as KeyString))
  .filter((key) => key.length > 0);

const main = fc.oneof(fc.nat(5), fc.maxSafeInteger().map(Math.abs));
const sub = fc.nat(1000);

describe("rows of the index", () => {
  it("keep the order of user keys, but for long keys with the same beginning", () => {
    fc.assert(
      fc.property(userKey, userKey, (a, b) => {
        const order = Math.sign(compareBytes(a, b));
        const live = Math.sign(compareBytes(liveKey(a), liveKey(b)));
        const isOneGroup =
          isLongLiveKey(liveKey(a)) &&
          isLongLiveKey(liveKey(b)) &&
          compareBytes(a.subarray(0, SHORT_KEY_BYTES_MAX), b.subarray(0, SHORT_KEY_BYTES_MAX)) === 0;
        if (!isOneGroup || order === 0) expect(live).toBe(order);
        const past = Math.sign(compareBytes(pastPrefix(a), pastPrefix(b)));
        const isOnePastGroup =
          isLongKeyForPast(a) && isLongKeyForPast(b) && compareBytes(pastBound(a), pastBound(b)) === 0;
        if (!isOnePastGroup || order === 0) expect(past).toBe(order);
      }),
      { numRuns: 2000 },
    );
  });

  it("keep a key's past revisions together, in order, and out of other keys' bounds", () => {
    fc.assert(
      fc.property(userKey, main, sub, userKey, main, sub, (a, mainA, subA, b, mainB, subB) => {
        const rowA = pastKey(a, mainA, subA);
        const rowB = pastKey(b, mainB, subB);
        expect([mainOfPastKey(rowA), subOfPastKey(rowA)]).toEqual([mainA, subA]);
        expect(compareBytes(prefixOfPastKey(rowA), pastPrefix(a))).toBe(0);
        expect(compareBytes(rowA, pastPrefixEnd(pastPrefix(a)))).toBeLessThan(0);
        expect(compareBytes(pastBound(a), rowA)).toBeLessThan(0);
        const order = Math.sign(compareBytes(a, b));
        if (order === 0) {
          expect(Math.sign(compareBytes(rowA, rowB))).toBe(Math.sign(mainA - mainB || subA - subB));
        } else if (!(isLongKeyForPast(a) && isLongKeyForPast(b))) {
          expect(Math.sign(compareBytes(rowA, rowB))).toBe(order);
          // As an end, a bound keeps its key and all above out; as a start it lets them in.
          if (order < 0) expect(compareBytes(rowA, pastBound(b))).toBeLessThan(0);
          else expect(compareBytes(pastBound(b), rowA)).toBeLessThan(0);
        }
      }),
      { numRuns: 2000 },
    );
  });

  it("stay within what LMDB takes, and the bounds of a group hold its keys", () => {
    fc.assert(
      fc.property(userKey, main, sub, (key, atMain, atSub) => {
        expect(leasedKey(1n, liveKey(key)).length).toBeLessThanOrEqual(KEY_BYTES_MAX);
        const row = pastKey(key, atMain, atSub);
        expect(row.length).toBeLessThanOrEqual(KEY_BYTES_MAX);
        if (isLongLiveKey(liveKey(key))) {
          expect(compareBytes(liveGroupStart(key), liveKey(key))).toBeLessThan(0);
          expect(compareBytes(liveKey(key), liveGroupEnd(key))).toBeLessThan(0);
          expect(compareBytes(key.subarray(0, SHORT_KEY_BYTES_MAX), liveGroupStart(key))).toBeLessThan(0);
        }
        if (isLongKeyForPast(key)) {
          expect(userKeyOfPastPrefix(pastPrefix(key))).toBeUndefined();
          expect(compareBytes(row, pastGroupEnd(key))).toBeLessThan(0);
        } else {
          expect(keyString(userKeyOfPastPrefix(pastPrefix(key)) as Uint8Array)).toBe(keyString(key));
        }
        expect(keyString(liveKeyOfLeasedKey(leasedKey(-1n, liveKey(key))))).toBe(keyString(liveKey(key)));
      }),
      { numRuns: 2000 },
    );
  });

  it("carry their numbers", () => {
    const version = fc.integer({ min: 1, max: 2 ** 40 });
    const lease = fc.oneof(fc.constant(0n), fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }));
    fc.assert(
      fc.property(main, sub, version, lease, fc.nat(100), (atMain, atSub, atVersion, atLease, age) => {
        const createRevision = Math.max(0, atMain - age);
        const row = { main: atMain, sub: atSub, createRevision, version: atVersion, lease: atLease };
        expect(decodeLiveRow(encodeLiveRow(row))).toEqual({ ...row, inline: undefined });
        const keyValue = encodeKeyValue({
          key: Buffer.from("k"),
          createRevision,
          modRevision: atMain,
          version: atVersion,
          value: Buffer.from("v"),
          lease: atLease,
        });
        const inline = decodeLiveRow(encodeInlineLiveRow(atSub, keyValue));
        expect({ ...inline, inline: undefined }).toEqual({ ...row, inline: undefined });
        expect(Buffer.compare(inline.inline as Uint8Array, keyValue)).toBe(0);
        expect(decodePastRow(encodePastRow(atMain))).toBe(atMain);
      }),
    );
    expect(decodePastRow(new Uint8Array())).toBeUndefined();
  });
});

describe("stored KeyValues and revisions", () => {
  it("are the bytes of the generated codec", () => {
    const bytes = fc.uint8Array({ maxLength: 300 });
    const counter = fc.oneof(fc.nat(300), fc.maxSafeInteger().map(Math.abs));
    const lease = fc.oneof(fc.constant(0n), fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }));
    fc.assert(
      fc.property(
        bytes,
        counter,
        counter,
        counter,
        bytes,
        lease,
        (key, createRevision, modRevision, version, value, id) => {
          const fields = { key, createRevision, modRevision, version, value, lease: id };
          const stored = encodeKeyValue(fields);
          expect(stored.toString("hex")).toBe(Buffer.from(KeyValue.encode(fields)).toString("hex"));
          const read = readKeyValue(stored);
          expect({ ...read, key: keyString(read.key), value: keyString(read.value) }).toEqual({
            ...fields,
            key: keyString(key),
            value: keyString(value),
          });
          expect(keyString(keyOfKeyValue(stored))).toBe(keyString(key));
        },
      ),
    );
  });

  it("read rows that others wrote: fields in another order, unknown ones, nothing at all", () => {
    const stored = Buffer.from([0x18, 5, 0x3a, 2, 9, 9, 0x0a, 1, 0x6b, 0x41, 0, 0, 0, 0, 0, 0, 0, 0, 0x4d, 0, 0, 0, 0]);
    expect(readKeyValue(stored)).toMatchObject({ modRevision: 5, version: 0 });
    expect(keyString(keyOfKeyValue(stored))).toBe("k");
    expect(keyOfKeyValue(new Uint8Array()).length).toBe(0);
    expect(() => readKeyValue(Buffer.from([0x0a, 5, 1]))).toThrow(RangeError);
    expect(() => readKeyValue(Buffer.from([0x18, 0x80]))).toThrow(RangeError);
    expect(() => readKeyValue(Buffer.from([0x0b]))).toThrow(RangeError);
  });

  it("write revisions as etcd does", () => {
    expect(revisionKey(2, 0).toString("hex")).toBe("00000000000000025f0000000000000000");
    expect(tombstoneKey(258, 3).toString("hex")).toBe("00000000000001025f000000000000000374");
    expect([isTombstoneKey(tombstoneKey(1, 1)), isTombstoneKey(revisionKey(1, 1))]).toEqual([true, false]);
    fc.assert(
      fc.property(main, sub, (atMain, atSub) => {
        const key = revisionKey(atMain, atSub);
        expect([mainOfRevisionKey(key), subOfRevisionKey(key)]).toEqual([atMain, atSub]);
        const counter = Buffer.alloc(8);
        writeCounter(counter, 0, atMain);
        expect(counter.readBigUInt64BE()).toBe(BigInt(atMain));
        expect(readCounter(counter, 0)).toBe(atMain);
        const varint = new Uint8Array(varintLength(atMain));
        expect(writeVarint(varint, 0, atMain)).toBe(varint.length);
        expect(new VarintCursor(varint).next()).toBe(atMain);
      }),
    );
    expect(() => readCounter(Buffer.alloc(8, 0xff), 0)).toThrow(RangeError);
  });
});
