import { expect, it } from "vitest";
import { yieldToEventLoop } from "../../lib/wait.ts";
import { Turns } from "./turns.ts";

it("Turns lets a bounded amount of work into one turn of the event loop, in the order of coming", async () => {
  const turns = new Turns(10);
  const perTurn: string[][] = [[]];
  let isOver = false;
  const worker = async (name: string) => {
    for (let i = 0; i < 12; i++) {
      perTurn.at(-1)?.push(name);
      if (turns.pay(1)) await turns.next();
    }
  };
  const counting = (async () => {
    while (!isOver) {
      await yieldToEventLoop();
      perTurn.push([]);
    }
  })();
  await Promise.all(["a", "b", "c"].map(worker));
  isOver = true;
  await counting;
  const worked = perTurn.filter((names) => names.length > 0);
  expect(worked.flat()).toHaveLength(36);
  // Those who come when nothing is left still do what they came for, and then wait.
  for (const names of worked) expect(names.length).toBeLessThanOrEqual(13);
  expect(worked.length).toBeGreaterThan(2);
  // Nobody is left behind by those who came first.
  expect(new Set(worked[1])).toEqual(new Set(["a", "b", "c"]));
});
