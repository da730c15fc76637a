import { describe, expect, it } from "vitest";
import { VirtualClock } from "../lib/clock.ts";
import { SeededRandom } from "../lib/random.ts";
import { deferred } from "../lib/wait.ts";
import { SimpleTokens, type WaitForIndex } from "./simple-tokens.ts";

function open(options: { ttlSeconds?: number; waitForIndex?: WaitForIndex } = {}) {
  const clock = new VirtualClock();
  const tokens = new SimpleTokens({
    clock,
    random: new SeededRandom(1),
    simpleTtlSeconds: options.ttlSeconds ?? 300,
    waitForIndex: options.waitForIndex ?? (() => undefined),
  });
  tokens.enable();
  const login = (username: string, index = 10) => tokens.assign({ username, prefix: tokens.newPrefix(), index });
  const who = (token: string) => tokens.callerOf(token, 5, undefined);
  return { clock, tokens, login, who };
}

describe("simple tokens", () => {
  it("are 16 letters, a dot and the index before theirs; they name their user at the current revision", () => {
    const { login, who } = open();
    const token = login("ann", 42);
    expect(token).toMatch(/^[a-zA-Z]{16}\.41$/);
    expect(login("ann", 43)).not.toBe(token);
    expect(who(token)).toEqual({ username: "ann", authRevision: 5 });
    for (const wrong of ["", "x", "x.y", "abcdefghijklmnop.42", `${token}.1`, token.replace(".", ""), "a.b.c"]) {
      expect(who(wrong)).toBeUndefined();
    }
  });

  it("live as long as they are used, and end when nobody used them in time", () => {
    const { clock, login, who, tokens } = open({ ttlSeconds: 10 });
    const used = login("ann", 1);
    const unused = login("bob", 2);
    for (let i = 0; i < 5; i++) {
      clock.advance(9000);
      expect(who(used)).toBeDefined();
    }
    expect(tokens.size).toBe(1);
    expect(who(unused)).toBeUndefined();
    clock.advance(10_001);
    expect(who(used)).toBeUndefined();
    clock.advance(2000);
    expect(tokens.size).toBe(0);
  });

  it("a time to live of 0 is that of the default", () => {
    const { clock, login, who } = open({ ttlSeconds: 0 });
    const token = login("ann");
    clock.advance(299_000);
    expect(who(token)).toBeDefined();
  });

  it("end with their user, and all of them when auth is switched off", () => {
    const { login, who, tokens } = open();
    const ann = login("ann", 1);
    const bob = login("bob", 2);
    tokens.forget("ann");
    expect(who(ann)).toBeUndefined();
    expect(who(bob)).toBeDefined();
    tokens.disable();
    expect(who(bob)).toBeUndefined();
    expect(who(login("cy", 3))).toBeUndefined();
    tokens.enable();
    expect(who(bob)).toBeUndefined();
  });

  it("of an entry that is not applied yet are judged when it is", async () => {
    const arrived = deferred<boolean>();
    const asked: number[] = [];
    const waitForIndex: WaitForIndex = (index) => {
      asked.push(index);
      return index > 20 ? arrived.promise : undefined;
    };
    const { who, tokens } = open({ waitForIndex });
    const early = who("abcdefghijklmnop.20");
    expect(early).toBeInstanceOf(Promise);
    const never = who("ponmlkjihgfedcba.20");
    tokens.assign({ username: "ann", prefix: "abcdefghijklmnop", index: 21 });
    arrived.resolve(true);
    expect(await early).toEqual({ username: "ann", authRevision: 5 });
    expect(await never).toBeUndefined();
    expect(who("abcdefghijklmnop.19")).toBeUndefined();
    expect(asked).toEqual([21, 21, 20]);
  });
});
