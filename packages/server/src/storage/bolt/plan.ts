/**
 * Where everything will lie in a bbolt file, told from the lengths of its rows alone: so a file can be sent from its first
 * byte on, which names places at the end. The layout is exactly the one that writer.ts makes.
 */
import { TreeLevels } from "../tree-levels.ts";
import { BUCKET_HEADER_BYTES, ELEMENT_BYTES, PAGE_HEADER_BYTES } from "./format.ts";
import { encodeMetaPages, inlineBytesMax, NODE_ELEMENTS_MAX, pagesOf } from "./writer.ts";

/** A bucket and the lengths of its rows, in order. */
export interface BucketSizes {
  readonly name: string;
  eachSize(visit: (keyBytes: number, valueBytes: number) => void): void;
}

export interface BucketPlan {
  readonly name: string;
  /** How many rows are in each leaf; undefined: the bucket is kept in the page of its name. */
  readonly leafRows: Uint16Array | undefined;
}

export interface BoltPlan {
  readonly pageSizeBytes: number;
  readonly fill: number;
  readonly sizeBytes: number;
  /** Both meta pages. */
  readonly head: readonly [Buffer, Buffer];
  readonly buckets: readonly BucketPlan[];
}

/** What a branch needs to know of a key. */
interface KeyLength {
  readonly length: number;
}

/** Names ascend. Two bytes a leaf are held in memory. */
export function planBolt(
  buckets: readonly BucketSizes[],
  { pageSizeBytes = 4096, fill = 1 }: { readonly pageSizeBytes?: number; readonly fill?: number } = {},
): BoltPlan {
  const nodeBytesMax = Math.floor(fill * pageSizeBytes);
  let nextPage = 2;
  const allocate = (bytes: number): number => {
    const page = nextPage;
    nextPage += pagesOf(bytes, pageSizeBytes);
    return page;
  };
  const plans: BucketPlan[] = [];
  let rootBytes = PAGE_HEADER_BYTES;
  for (const { name, eachSize } of buckets) {
    const layout = new BucketLayout(nodeBytesMax, allocate);
    eachSize((keyBytes, valueBytes) => layout.row(keyBytes, valueBytes));
    const inlineBytes = layout.finish(inlineBytesMax(pageSizeBytes));
    plans.push({ name, leafRows: inlineBytes === undefined ? layout.leafRows() : undefined });
    rootBytes += ELEMENT_BYTES + Buffer.byteLength(name) + BUCKET_HEADER_BYTES + (inlineBytes ?? 0);
  }
  const root = allocate(rootBytes);
  return {
    pageSizeBytes,
    fill,
    sizeBytes: nextPage * pageSizeBytes,
    head: encodeMetaPages(pageSizeBytes, root, nextPage),
    buckets: plans,
  };
}

/** As BucketWriter closes leaves and branches. */
class BucketLayout {
  readonly #nodeBytesMax: number;
  readonly #allocate: (bytes: number) => number;
  readonly #levels: TreeLevels<KeyLength>;
  #leafRows = new Uint16Array(1024);
  #leaves = 0;
  #bytes = PAGE_HEADER_BYTES;
  #count = 0;
  #firstKeyBytes = 0;

  constructor(nodeBytesMax: number, allocate: (bytes: number) => number) {
    this.#nodeBytesMax = nodeBytesMax;
    this.#allocate = allocate;
    const childBytes = ({ key }: { readonly key: KeyLength }) => ELEMENT_BYTES + key.length;
    this.#levels = new TreeLevels<KeyLength>({
      bytesMax: nodeBytesMax - PAGE_HEADER_BYTES,
      childrenMax: NODE_ELEMENTS_MAX,
      childBytes,
      write: (children) => allocate(children.reduce((bytes, child) => bytes + childBytes(child), PAGE_HEADER_BYTES)),
    });
  }

  row(keyBytes: number, valueBytes: number): void {
    const bytes = ELEMENT_BYTES + keyBytes + valueBytes;
    if (this.#count > 0 && (this.#bytes + bytes > this.#nodeBytesMax || this.#count === NODE_ELEMENTS_MAX)) {
      this.#closeLeaf();
    }
    if (this.#count === 0) this.#firstKeyBytes = keyBytes;
    this.#count++;
    this.#bytes += bytes;
  }

  /** Bytes of the bucket when it is kept in the page of its name. */
  finish(inlineMax: number): number | undefined {
    if (this.#leaves === 0 && this.#bytes <= inlineMax) return this.#bytes;
    this.#closeLeaf();
    this.#levels.close();
    return undefined;
  }

  leafRows(): Uint16Array {
    return this.#leafRows.subarray(0, this.#leaves);
  }

  #closeLeaf(): void {
    if (this.#leaves === this.#leafRows.length) {
      const larger = new Uint16Array(2 * this.#leaves);
      larger.set(this.#leafRows);
      this.#leafRows = larger;
    }
    this.#leafRows[this.#leaves++] = this.#count;
    const page = this.#allocate(this.#bytes);
    this.#bytes = PAGE_HEADER_BYTES;
    this.#count = 0;
    this.#levels.addLeaf({ key: { length: this.#firstKeyBytes }, page });
  }
}
