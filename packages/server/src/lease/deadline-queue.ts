/** A binary min-heap of ids by time, where an id appears at most once and can be moved. */

interface Entry {
  readonly id: bigint;
  atMs: number;
  position: number;
}

export class DeadlineQueue {
  #heap: Entry[] = [];
  readonly #byId = new Map<bigint, Entry>();

  get size(): number {
    return this.#heap.length;
  }

  /** Adds the id, or moves it when it is there. */
  set(id: bigint, atMs: number): void {
    const known = this.#byId.get(id);
    if (known) {
      const before = known.atMs;
      known.atMs = atMs;
      if (atMs < before) this.#up(known);
      else this.#down(known);
      return;
    }
    const entry: Entry = { id, atMs, position: this.#heap.length };
    this.#heap.push(entry);
    this.#byId.set(id, entry);
    this.#up(entry);
  }

  delete(id: bigint): void {
    const entry = this.#byId.get(id);
    if (!entry) return;
    this.#byId.delete(id);
    const last = this.#heap.pop() as Entry; // there is at least `entry`
    if (last === entry) return;
    last.position = entry.position;
    this.#heap[last.position] = last;
    this.#up(last);
    this.#down(last);
  }

  /** The id that is due first. */
  peek(): { readonly id: bigint; readonly atMs: number } | undefined {
    return this.#heap[0];
  }

  clear(): void {
    this.#heap = [];
    this.#byId.clear();
  }

  #up(entry: Entry): void {
    while (entry.position > 0) {
      const parent = this.#heap[(entry.position - 1) >> 1] as Entry; // in range: 0 <= it < position
      if (parent.atMs <= entry.atMs) return;
      this.#swap(parent, entry);
    }
  }

  #down(entry: Entry): void {
    for (;;) {
      const left = this.#heap[2 * entry.position + 1];
      const right = this.#heap[2 * entry.position + 2];
      const child = right && left && right.atMs < left.atMs ? right : left;
      if (!child || entry.atMs <= child.atMs) return;
      this.#swap(entry, child);
    }
  }

  #swap(a: Entry, b: Entry): void {
    const position = a.position;
    a.position = b.position;
    b.position = position;
    this.#heap[a.position] = a;
    this.#heap[b.position] = b;
  }
}
