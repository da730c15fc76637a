/**
 * The branches of a tree that is built from sorted leaves, bottom up: one unfinished branch a level is held in memory,
 * and the one before it, because no branch may end with a single child.
 */
export interface Child<Key extends { readonly length: number } = Uint8Array> {
  readonly key: Key;
  readonly page: number;
}

/** `Key`: the keys themselves, or no more than their lengths where only the layout is wanted. */
export interface BranchFormat<Key extends { readonly length: number } = Uint8Array> {
  /** Bytes that a page has for children, and how many it may have at most. */
  readonly bytesMax: number;
  readonly childrenMax: number;
  childBytes(child: Child<Key>, isFirst: boolean): number;
  /** Writes a branch; returns its page. */
  write(children: readonly Child<Key>[]): number;
}

interface Node<Key extends { readonly length: number }> {
  children: Child<Key>[];
  bytes: number;
}

interface Level<Key extends { readonly length: number }> {
  open: Node<Key>;
  held: Node<Key> | undefined;
}

export class TreeLevels<Key extends { readonly length: number } = Uint8Array> {
  readonly #format: BranchFormat<Key>;
  readonly #levels: Level<Key>[] = [];

  constructor(format: BranchFormat<Key>) {
    this.#format = format;
  }

  /** Levels of branches, once closed. */
  height = 0;

  addLeaf(child: Child<Key>): void {
    this.#add(0, child);
  }

  #add(height: number, child: Child<Key>): void {
    let level = this.#levels[height];
    if (!level) {
      level = { open: { children: [], bytes: 0 }, held: undefined };
      this.#levels[height] = level;
    }
    const { open } = level;
    const bytes = this.#format.childBytes(child, open.children.length === 0);
    // Two children at least, however long their keys: a branch with one would never end.
    if (
      open.children.length >= 2 &&
      (open.bytes + bytes > this.#format.bytesMax || open.children.length === this.#format.childrenMax)
    ) {
      if (level.held) this.#writeUp(height, level.held);
      level.held = open;
      level.open = { children: [], bytes: 0 };
    }
    level.open.bytes += this.#format.childBytes(child, level.open.children.length === 0);
    level.open.children.push(child);
  }

  #writeUp(height: number, node: Node<Key>): void {
    const page = this.#format.write(node.children);
    this.#add(height + 1, { key: (node.children[0] as Child<Key>).key, page });
  }

  /** Flushes all levels upwards; returns the page of the root. There was one leaf at least. */
  close(): number {
    for (let height = 0; ; height++) {
      const level = this.#levels[height] as Level<Key>;
      const { open, held } = level;
      if (!held) {
        this.height = height;
        // The only node of its level: it is the root, or, with one child, not needed at all.
        if (open.children.length === 1 && !this.#levels[height + 1]) return (open.children[0] as Child<Key>).page;
        this.height = height + 1;
        if (!this.#levels[height + 1]) return this.#format.write(open.children);
      } else {
        if (open.children.length < 2 && held.children.length > 2) {
          open.children.unshift(held.children.pop() as Child<Key>);
        }
        this.#writeUp(height, held);
        level.held = undefined;
      }
      this.#writeUp(height, open);
    }
  }
}
