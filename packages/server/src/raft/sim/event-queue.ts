/** Virtual time: what is to happen, in order of its time and, at the same time, in the order it was asked for. */

interface Event {
  readonly atMs: number;
  readonly order: number;
  readonly run: () => void;
}

export class EventQueue {
  nowMs = 0;
  #order = 0;
  /** A binary heap, the next event first. */
  readonly #heap: Event[] = [];

  after(delayMs: number, run: () => void): void {
    const event = { atMs: this.nowMs + delayMs, order: this.#order++, run };
    const heap = this.#heap;
    let at = heap.length;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!isBefore(event, heap[parent] as Event)) break;
      heap[at] = heap[parent] as Event;
      at = parent;
    }
    heap[at] = event;
  }

  /** Runs the next event unless it lies behind `untilMs`; false then, with the time set to it. */
  step(untilMs: number): boolean {
    const heap = this.#heap;
    const first = heap[0];
    if (!first || first.atMs > untilMs) {
      this.nowMs = untilMs;
      return false;
    }
    const moved = heap.pop() as Event;
    if (heap.length > 0) {
      let at = 0;
      for (;;) {
        let child = 2 * at + 1;
        if (child >= heap.length) break;
        if (child + 1 < heap.length && isBefore(heap[child + 1] as Event, heap[child] as Event)) child++;
        if (!isBefore(heap[child] as Event, moved)) break;
        heap[at] = heap[child] as Event;
        at = child;
      }
      heap[at] = moved;
    }
    this.nowMs = first.atMs;
    first.run();
    return true;
  }
}

function isBefore(a: Event, b: Event): boolean {
  return a.atMs < b.atMs || (a.atMs === b.atMs && a.order < b.order);
}
