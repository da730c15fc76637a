import { describe, expect, it } from "vitest";
import { compareBytes, keyBytes, keyString, prefixEnd, utf8Bytes } from "./bytes.ts";
import { VirtualClock } from "./clock.ts";
import { crc32c } from "./crc32c.ts";
import { SeededRandom } from "./random.ts";
import { deferred, orAborted } from "./wait.ts";

describe("bytes", () => {
  it("keyString() orders as the bytes do", () => {
    const keys = [[0], [0, 0], [0x7f], [0x80], [0xff], [0xff, 0xff], [1]].map((k) => Uint8Array.from(k));
    for (const a of keys) {
      for (const b of keys) {
        const byText = keyString(a) < keyString(b) ? -1 : keyString(a) > keyString(b) ? 1 : 0;
        expect(byText).toBe(Math.sign(compareBytes(a, b)));
      }
      expect(compareBytes(keyBytes(keyString(a)), a)).toBe(0);
    }
  });

  it("prefixEnd() is the first key after the prefix, and a zero byte when there is none", () => {
    expect([...prefixEnd(utf8Bytes("ab"))]).toEqual([0x61, 0x63]);
    expect([...prefixEnd(Uint8Array.of(1, 0xff, 0xff))]).toEqual([2]);
    expect([...prefixEnd(Uint8Array.of(0xff))]).toEqual([0]);
  });
});

describe("crc32c", () => {
  it("meets the check value and continues where it stopped", () => {
    expect(crc32c(utf8Bytes("123456789"))).toBe(0xe3069283);
    for (let cut = 0; cut <= 9; cut++) {
      const text = "123456789";
      expect(crc32c(utf8Bytes(text.slice(cut)), crc32c(utf8Bytes(text.slice(0, cut))))).toBe(0xe3069283);
    }
  });
});

describe("VirtualClock", () => {
  it("fires timers in order of time, then of creation, and cancelled ones never", () => {
    const clock = new VirtualClock();
    const seen: string[] = [];
    clock.after(20, () => seen.push("b"));
    clock.after(10, () => seen.push("a"));
    clock.after(20, () => seen.push("c"));
    clock.after(15, () => seen.push("never")).cancel();
    clock.advance(19);
    expect(seen).toEqual(["a"]);
    clock.advance(1);
    expect(seen).toEqual(["a", "b", "c"]);
  });
});

describe("SeededRandom", () => {
  it("repeats itself", () => {
    const draw = (seed: number) =>
      Array.from(
        { length: 5 },
        (
          (r) => () =>
            r.below(1000)
        )(new SeededRandom(seed)),
      );
    expect(draw(7)).toEqual(draw(7));
    expect(draw(7)).not.toEqual(draw(8));
  });
});

it("orAborted() takes care of a promise that nobody waits for any more", async () => {
  const late = deferred();
  await expect(orAborted(late.promise, AbortSignal.abort("over"))).rejects.toBe("over");
  // Without a listener this would end the process, as it ends the run of tests.
  late.reject(new Error("too late"));
  await new Promise((resolve) => setImmediate(resolve));
});
