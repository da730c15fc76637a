/**
 * Three members under a load of writes while leaders are killed, members stand still, links are cut and everything is
 * started again at once: no acknowledged write is lost, no revision is given twice, all members tell the same history.
 * A few rounds here; `npm run soak` goes on for as long as one likes.
 */
import { describe, expect, it } from "vitest";
import { leaderKills, linkCuts, pauses, restartsOfAll } from "./harness/scenarios.ts";

describe("three members under load", () => {
  it("survive kill -9 of the leader", async () => {
    const { acknowledged, gapsMs } = await leaderKills({ rounds: 3 });
    expect(acknowledged).toBeGreaterThan(0);
    process.stdout.write(`writes stood still for ${gapsMs.map((ms) => Math.round(ms)).join(", ")} ms\n`);
  }, 180_000);

  it("survive members that stand still", async () => {
    expect((await pauses({ rounds: 2 })).acknowledged).toBeGreaterThan(0);
  }, 180_000);

  it("survive links that are cut, each way and both ways", async () => {
    expect((await linkCuts({ rounds: 6 })).acknowledged).toBeGreaterThan(0);
  }, 240_000);

  it("survive the end of all of them at once", async () => {
    expect((await restartsOfAll({ rounds: 1 })).acknowledged).toBeGreaterThan(0);
  }, 180_000);
});
