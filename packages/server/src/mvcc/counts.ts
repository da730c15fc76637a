/**
 * How many keys are alive in an interval, without walking it. (The first form walks; the blocks come with it.)
 */
import type { BackendReader } from "../storage/index.ts";
import { countLive } from "./key-index.ts";
import type { KeyRange } from "./key-range.ts";

export class Counts {
  start(_reader: BackendReader, _signal: AbortSignal): void {}

  async stopped(): Promise<void> {}

  count(reader: BackendReader, range: KeyRange): number {
    return countLive(reader, range);
  }

  added(_reader: BackendReader, _rowKey: Uint8Array): void {}

  removed(_reader: BackendReader, _rowKey: Uint8Array): void {}
}
