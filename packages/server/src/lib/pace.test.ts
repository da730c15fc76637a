import { describe, expect, it } from "vitest";
import { VirtualClock } from "./clock.ts";
import { Pace } from "./pace.ts";

describe("Pace", () => {
  it("gives way for a turn of the event loop, and for some time while others have something to do", async () => {
    const clock = new VirtualClock();
    const pace = new Pace(clock);
    await pace.giveWay();
    pace.touch();
    let isDone = false;
    const rest = pace.giveWay().then(() => {
      isDone = true;
    });
    await new Promise(setImmediate);
    expect(isDone).toBe(false);
    clock.advance(1);
    await rest;
    clock.advance(5);
    await pace.giveWay();
  });
});
