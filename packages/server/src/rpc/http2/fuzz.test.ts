/** A share of scripts/fuzz-http2.mjs, which goes on for millions of frames. */
import { expect, it } from "vitest";
import { fuzzConnection } from "./testing/fuzz.ts";

it("bent clients break nothing: each call ends once, and nothing outlives its connection", async () => {
  let frames = 0;
  let calls = 0;
  for (let seed = 1; seed <= 60; seed++) {
    const result = await fuzzConnection(seed);
    frames += result.frames;
    calls += result.calls;
  }
  expect(frames).toBeGreaterThan(4000);
  expect(calls).toBeGreaterThan(500);
});
