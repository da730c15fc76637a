/**
 * Writes a compact bbolt file in one pass from sorted rows. Nodes are closed as they fill up and written at once; only
 * one unfinished node a level is held in memory. The meta pages, which make the file valid, come last.
 */
import {
  BoltError,
  BUCKET_HEADER_BYTES,
  ELEMENT_BYTES,
  ELEMENT_IS_BUCKET,
  encodeMetaPage,
  FLAG_BRANCH,
  FLAG_LEAF,
  PAGE_HEADER_BYTES,
} from "./format.ts";

/** Where the writer puts bytes. Positions ascend, but for the meta pages at the end. */
export interface BoltSink {
  write(bytes: Uint8Array, position: number): void;
}

export interface BoltWriterOptions {
  readonly pageSizeBytes?: number | undefined;
  /** Share of a page that is filled. 1 leaves no room for later inserts between keys, of which etcd makes few. */
  readonly fill?: number | undefined;
}

const KEY_BYTES_MAX = 32768;
const NODE_ELEMENTS_MAX = 0xfffe;
/** Even, so that etcd's first commit goes over the older of the two meta pages. */
const TRANSACTION_ID = 2n;

interface Element {
  readonly key: Uint8Array;
  readonly value: Uint8Array;
  readonly flags: number;
}

interface Child {
  readonly key: Uint8Array;
  readonly page: number;
}

/** A node as it fills up: what it holds, and its size as a page. */
interface Node<E> {
  elements: E[];
  bytes: number;
}

function emptyNode<E>(): Node<E> {
  return { elements: [], bytes: PAGE_HEADER_BYTES };
}

interface Level {
  /** Children that make up the node being filled. */
  open: Node<Child>;
  /** The last finished node, not yet written: the final one may need a child of it. */
  held: Node<Child> | undefined;
}

export class BoltWriter {
  readonly #sink: BoltSink;
  readonly #pageSizeBytes: number;
  readonly #nodeBytesMax: number;
  readonly #inlineBytesMax: number;
  readonly #buckets: Element[] = [];
  #nextPage = 2;
  #lastBucket: string | undefined;

  constructor(sink: BoltSink, options: BoltWriterOptions = {}) {
    this.#sink = sink;
    this.#pageSizeBytes = options.pageSizeBytes ?? 4096;
    this.#nodeBytesMax = Math.floor((options.fill ?? 1) * this.#pageSizeBytes);
    this.#inlineBytesMax = Math.floor(this.#pageSizeBytes / 4);
  }

  /** Begins the next bucket; names ascend. Rows go to what it returns, keys ascending, until its `finish()`. */
  bucket(name: string): BucketWriter {
    if (this.#lastBucket !== undefined && name <= this.#lastBucket) throw new BoltError("buckets out of order");
    this.#lastBucket = name;
    return new BucketWriter(
      {
        nodeBytesMax: this.#nodeBytesMax,
        inlineBytesMax: this.#inlineBytesMax,
        writeLeaf: (elements) => this.#writeNode(FLAG_LEAF, elements),
        writeBranch: (children) => this.#writeBranch(children),
      },
      (header) => this.#buckets.push({ key: Buffer.from(name, "utf8"), value: header, flags: ELEMENT_IS_BUCKET }),
    );
  }

  /** Writes the root and the meta pages. Returns the size of the file. */
  finish(): number {
    const root = this.#writeNode(FLAG_LEAF, this.#buckets);
    const meta = {
      pageSizeBytes: this.#pageSizeBytes,
      root,
      // Not stored, as etcd leaves it on Linux: it is derived from the pages that are reached.
      freelist: undefined,
      highWater: this.#nextPage,
    };
    this.#sink.write(encodeMetaPage(0, { ...meta, transactionId: TRANSACTION_ID }), 0);
    this.#sink.write(encodeMetaPage(1, { ...meta, transactionId: TRANSACTION_ID - 1n }), this.#pageSizeBytes);
    return this.#nextPage * this.#pageSizeBytes;
  }

  #writeNode(flags: number, elements: readonly Element[]): number {
    let size = PAGE_HEADER_BYTES;
    for (const { key, value } of elements) size += ELEMENT_BYTES + key.length + value.length;
    const { page, number } = this.#allocate(flags, elements.length, size);
    let data = PAGE_HEADER_BYTES + elements.length * ELEMENT_BYTES;
    for (let i = 0; i < elements.length; i++) {
      const { key, value, flags: elementFlags } = elements[i] as Element;
      const at = PAGE_HEADER_BYTES + i * ELEMENT_BYTES;
      page.writeUInt32LE(elementFlags, at);
      page.writeUInt32LE(data - at, at + 4);
      page.writeUInt32LE(key.length, at + 8);
      page.writeUInt32LE(value.length, at + 12);
      page.set(key, data);
      page.set(value, data + key.length);
      data += key.length + value.length;
    }
    this.#sink.write(page, number * this.#pageSizeBytes);
    return number;
  }

  #writeBranch(children: readonly Child[]): number {
    let size = PAGE_HEADER_BYTES;
    for (const { key } of children) size += ELEMENT_BYTES + key.length;
    const { page, number } = this.#allocate(FLAG_BRANCH, children.length, size);
    let data = PAGE_HEADER_BYTES + children.length * ELEMENT_BYTES;
    for (let i = 0; i < children.length; i++) {
      const { key, page: child } = children[i] as Child;
      const at = PAGE_HEADER_BYTES + i * ELEMENT_BYTES;
      page.writeUInt32LE(data - at, at);
      page.writeUInt32LE(key.length, at + 4);
      page.writeBigUInt64LE(BigInt(child), at + 8);
      page.set(key, data);
      data += key.length;
    }
    this.#sink.write(page, number * this.#pageSizeBytes);
    return number;
  }

  #allocate(flags: number, count: number, size: number): { page: Buffer; number: number } {
    const pages = Math.max(1, Math.ceil(size / this.#pageSizeBytes));
    const number = this.#nextPage;
    this.#nextPage += pages;
    const page = Buffer.alloc(pages * this.#pageSizeBytes);
    page.writeBigUInt64LE(BigInt(number), 0);
    page.writeUInt16LE(flags, 8);
    page.writeUInt16LE(count, 10);
    page.writeUInt32LE(pages - 1, 12);
    return { page, number };
  }
}

interface Nodes {
  readonly nodeBytesMax: number;
  readonly inlineBytesMax: number;
  writeLeaf(elements: readonly Element[]): number;
  writeBranch(children: readonly Child[]): number;
}

export class BucketWriter {
  readonly #nodes: Nodes;
  readonly #done: (header: Buffer) => void;
  #leaf: Node<Element> = emptyNode();
  readonly #levels: Level[] = [];
  #leaves = 0;
  #lastKey: Uint8Array | undefined;

  constructor(nodes: Nodes, done: (header: Buffer) => void) {
    this.#nodes = nodes;
    this.#done = done;
  }

  /** Both arrays are the writer's until the node is written. */
  put(key: Uint8Array, value: Uint8Array): void {
    if (key.length === 0 || key.length > KEY_BYTES_MAX) throw new BoltError(`a key of ${key.length} bytes`);
    if (this.#lastKey && Buffer.compare(this.#lastKey, key) >= 0) throw new BoltError("keys out of order");
    this.#lastKey = key;
    const bytes = ELEMENT_BYTES + key.length + value.length;
    const { elements } = this.#leaf;
    if (
      elements.length > 0 &&
      (this.#leaf.bytes + bytes > this.#nodes.nodeBytesMax || elements.length === NODE_ELEMENTS_MAX)
    ) {
      this.#closeLeaf();
    }
    this.#leaf.elements.push({ key, value, flags: 0 });
    this.#leaf.bytes += bytes;
  }

  finish(): void {
    const header = Buffer.alloc(BUCKET_HEADER_BYTES);
    if (this.#leaves === 0 && this.#leaf.bytes <= this.#nodes.inlineBytesMax) {
      this.#done(Buffer.concat([header, inlineLeaf(this.#leaf)]));
      return;
    }
    this.#closeLeaf();
    header.writeBigUInt64LE(BigInt(this.#closeLevels()), 0);
    this.#done(header);
  }

  #closeLeaf(): void {
    const { elements } = this.#leaf;
    const first = elements[0] as Element;
    this.#leaves++;
    const page = this.#nodes.writeLeaf(elements);
    this.#leaf = emptyNode();
    this.#addChild(0, { key: first.key, page });
  }

  #addChild(height: number, child: Child): void {
    let level = this.#levels[height];
    if (!level) {
      level = { open: emptyNode(), held: undefined };
      this.#levels[height] = level;
    }
    const bytes = ELEMENT_BYTES + child.key.length;
    const { open } = level;
    // Two children at least, however long their keys: a branch with one would never end.
    if (
      open.elements.length >= 2 &&
      (open.bytes + bytes > this.#nodes.nodeBytesMax || open.elements.length === NODE_ELEMENTS_MAX)
    ) {
      if (level.held) this.#writeHeld(height, level.held);
      level.held = open;
      level.open = emptyNode();
    }
    level.open.elements.push(child);
    level.open.bytes += bytes;
  }

  #writeHeld(height: number, node: Node<Child>): void {
    const page = this.#nodes.writeBranch(node.elements);
    this.#addChild(height + 1, { key: (node.elements[0] as Child).key, page });
  }

  /** Flushes all levels upwards; returns the page of the root. */
  #closeLevels(): number {
    for (let height = 0; ; height++) {
      const level = this.#levels[height] as Level;
      const { open, held } = level;
      if (!held) {
        // The only node of its level: it is the root, or, with one child, not needed at all.
        if (open.elements.length === 1 && !this.#levels[height + 1]) return (open.elements[0] as Child).page;
        if (!this.#levels[height + 1]) return this.#nodes.writeBranch(open.elements);
      } else {
        if (open.elements.length < 2 && held.elements.length > 2) {
          open.elements.unshift(held.elements.pop() as Child);
        }
        this.#writeHeld(height, held);
        level.held = undefined;
      }
      this.#writeHeld(height, open);
    }
  }
}

function inlineLeaf(leaf: Node<Element>): Buffer {
  const { elements } = leaf;
  const page = Buffer.alloc(leaf.bytes);
  page.writeUInt16LE(FLAG_LEAF, 8);
  page.writeUInt16LE(elements.length, 10);
  let data = PAGE_HEADER_BYTES + elements.length * ELEMENT_BYTES;
  for (let i = 0; i < elements.length; i++) {
    const { key, value } = elements[i] as Element;
    const at = PAGE_HEADER_BYTES + i * ELEMENT_BYTES;
    page.writeUInt32LE(data - at, at + 4);
    page.writeUInt32LE(key.length, at + 8);
    page.writeUInt32LE(value.length, at + 12);
    page.set(key, data);
    page.set(value, data + key.length);
    data += key.length + value.length;
  }
  return page;
}
