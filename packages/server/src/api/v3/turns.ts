/**
 * Shares the thread between those who send much and everybody else. Work is paid for in units; what one turn of the event
 * loop has is bounded, and who comes when it is used up waits for a later turn, in the order of coming. So a thousand
 * watchers cost a writer a few milliseconds at a time, and not as long as all of them take.
 */
import { type Deferred, deferred, yieldToEventLoop } from "../../lib/wait.ts";

export class Turns {
  readonly #unitsMax: number;
  #left: number;
  #isTurning = false;
  readonly #waiting: Deferred[] = [];

  constructor(unitsMax: number) {
    this.#unitsMax = unitsMax;
    this.#left = unitsMax;
  }

  /** Pays for what was done. True: wait for {@link next} before more is done. */
  pay(units: number): boolean {
    this.#left -= units;
    if (!this.#isTurning) {
      this.#isTurning = true;
      void this.#turn();
    }
    return this.#left <= 0 || this.#waiting.length > 0;
  }

  /** Resolves in a turn that has something left. */
  next(): Promise<void> {
    const place = deferred();
    this.#waiting.push(place);
    return place.promise;
  }

  async #turn(): Promise<void> {
    do {
      await yieldToEventLoop();
      this.#left = this.#unitsMax;
      // Each of them does at least one unit's work before it asks again.
      for (const place of this.#waiting.splice(0, this.#unitsMax)) place.resolve();
    } while (this.#waiting.length > 0);
    this.#isTurning = false;
  }
}
