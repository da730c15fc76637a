/**
 * Profiles in the format of pprof (`profile.proto`), which `go tool pprof`, speedscope, Parca and Pyroscope read: from
 * stacks of named functions with numbers to compressed bytes. Only what these tools need is written.
 */
import { gzipSync } from "node:zlib";

export interface ProfileFunction {
  readonly name: string;
  readonly file: string;
  /** From 1; 0 when unknown. */
  readonly line: number;
}

export interface ProfileSample {
  /** Leaf first. */
  readonly stack: readonly ProfileFunction[];
  /** One for each of the profile's types. */
  readonly values: readonly number[];
}

export interface ProfileContent {
  readonly types: readonly { readonly type: string; readonly unit: string }[];
  readonly samples: Iterable<ProfileSample>;
  /** What one sample stands for, in the last type's unit; 0: nothing. */
  readonly period?: number;
  readonly startedMs: number;
  readonly durationMs?: number;
}

/** Grows as it is written to. */
class Message {
  #bytes: number[] = [];

  varint(field: number, value: number): this {
    if (value === 0) return this;
    this.#raw(field * 8);
    return this.#raw(value);
  }

  /** A varint, negative ones as 64-bit two's complement. */
  #raw(value: number): this {
    if (value < 0 || value > Number.MAX_SAFE_INTEGER) {
      let rest = BigInt.asUintN(64, BigInt(Math.round(value)));
      for (; rest >= 0x80n; rest >>= 7n) this.#bytes.push(Number(rest & 0x7fn) | 0x80);
      this.#bytes.push(Number(rest));
      return this;
    }
    let rest = Math.round(value);
    for (; rest >= 0x80; rest = Math.floor(rest / 128)) this.#bytes.push((rest & 0x7f) | 0x80);
    this.#bytes.push(rest);
    return this;
  }

  bytes(field: number, bytes: Iterable<number> & { readonly length: number }): this {
    this.#raw(field * 8 + 2).#raw(bytes.length);
    for (const byte of bytes) this.#bytes.push(byte);
    return this;
  }

  packed(field: number, values: readonly number[]): this {
    const inner = new Message();
    for (const value of values) inner.#raw(value);
    return this.bytes(field, inner.#bytes);
  }

  message(field: number, inner: Message): this {
    return this.bytes(field, inner.#bytes);
  }

  finish(): Buffer {
    return Buffer.from(this.#bytes);
  }
}

/** Numbers things in the order of their first use. */
class Numbering {
  readonly #numbers = new Map<string, number>();

  /** The number of `key`, and whether it is new. */
  of(key: string, first: number): { readonly id: number; readonly isNew: boolean } {
    const known = this.#numbers.get(key);
    if (known !== undefined) return { id: known, isNew: false };
    const id = this.#numbers.size + first;
    this.#numbers.set(key, id);
    return { id, isNew: true };
  }

  keys(): IterableIterator<string> {
    return this.#numbers.keys();
  }
}

export function encodeProfile({ types, samples, period = 0, startedMs, durationMs = 0 }: ProfileContent): Buffer {
  const texts = new Numbering();
  const text = (value: string) => texts.of(value, 0).id;
  text("");
  const valueType = ({ type, unit }: { type: string; unit: string }) =>
    new Message().varint(1, text(type)).varint(2, text(unit));

  const profile = new Message();
  for (const type of types) profile.message(1, valueType(type));
  const functions = new Numbering();
  const parts: { readonly location: Message; readonly fn: Message }[] = [];
  const locationOf = ({ name, file, line }: ProfileFunction): number => {
    const { id, isNew } = functions.of(`${name}\0${file}\0${line}`, 1);
    if (isNew) {
      const shown = text(name);
      parts.push({
        location: new Message().varint(1, id).varint(2, 1).message(4, new Message().varint(1, id).varint(2, line)),
        fn: new Message().varint(1, id).varint(2, shown).varint(3, shown).varint(4, text(file)).varint(5, line),
      });
    }
    return id;
  };
  for (const { stack, values } of samples) {
    profile.message(2, new Message().packed(1, stack.map(locationOf)).packed(2, values));
  }
  // One mapping, all of whose functions have names: tools then look for no symbols elsewhere.
  profile.message(3, new Message().varint(1, 1).varint(5, text("etcd")).varint(7, 1).varint(8, 1).varint(9, 1));
  for (const { location } of parts) profile.message(4, location);
  for (const { fn } of parts) profile.message(5, fn);
  const last = types.at(-1);
  const periodType = last && valueType(last);
  for (const key of texts.keys()) profile.bytes(6, Buffer.from(key, "utf8"));
  profile.varint(9, startedMs * 1e6).varint(10, durationMs * 1e6);
  if (periodType && period > 0) profile.message(11, periodType).varint(12, period);
  return gzipSync(profile.finish());
}
