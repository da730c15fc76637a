/**
 * Pages on their way into a new file, in the order of their numbers. They collect in big buffers, and while one is
 * written the next one fills; what is written is also pushed to the disk now and then, so that the sync at the end
 * does not have all of it to do.
 */
import { type OpenFile, writeFully } from "./file-system.ts";

const BUFFER_BYTES = 2 * 1024 * 1024;
const PUSH_BYTES = 64 * 1024 * 1024;

export class PageOutput {
  readonly file: OpenFile;
  /** Where the next page will be in the file. */
  position: number;
  // Where the page that was asked for last is.
  buffer: Buffer;
  at = 0;
  #used = 0;
  #bufferFrom: number;
  readonly #full: { readonly bytes: Buffer; readonly length: number; readonly position: number }[] = [];
  readonly #free: Buffer[] = [];
  #writing: Promise<void> | undefined;
  #pushing: Promise<void> | undefined;
  #sincePush = 0;
  #failure: unknown;

  constructor(file: OpenFile, position: number) {
    this.file = file;
    this.position = position;
    this.#bufferFrom = position;
    this.buffer = Buffer.allocUnsafeSlow(BUFFER_BYTES);
  }

  /** Room for the next `length` bytes of the file: `buffer` from `at` on, with whatever was there before. */
  page(length: number): void {
    if (this.#used + length > this.buffer.length) {
      this.#turn(Math.max(length, BUFFER_BYTES));
    }
    this.at = this.#used;
    this.#used += length;
    this.position += length;
  }

  #turn(bytes: number): void {
    if (this.#used > 0) {
      this.#full.push({ bytes: this.buffer, length: this.#used, position: this.#bufferFrom });
    }
    this.buffer = (bytes === BUFFER_BYTES ? this.#free.pop() : undefined) ?? Buffer.allocUnsafeSlow(bytes);
    this.#used = 0;
    this.#bufferFrom = this.position;
  }

  /** Time to let `drain` work. */
  get isFull(): boolean {
    return this.#full.length > 0;
  }

  /** Hands full buffers to the system; waits only for the one before. */
  async drain(): Promise<void> {
    for (let next = this.#full.shift(); next; next = this.#full.shift()) {
      await this.#writing;
      if (this.#failure) throw this.#failure;
      this.#writing = this.#write(next).catch((error: unknown) => {
        this.#failure ??= error;
      });
    }
  }

  async #write({ bytes, length, position }: { bytes: Buffer; length: number; position: number }): Promise<void> {
    await writeFully(this.file, bytes, length, position);
    if (bytes.length === BUFFER_BYTES) this.#free.push(bytes);
    this.#sincePush += length;
    if (this.#sincePush < PUSH_BYTES || this.#pushing) return;
    this.#sincePush = 0;
    this.#pushing = this.file
      .datasync()
      .catch((error: unknown) => {
        this.#failure ??= error;
      })
      .finally(() => {
        this.#pushing = undefined;
      });
  }

  /** All that was asked for is in the file, though not synced. */
  async finish(): Promise<void> {
    this.#turn(BUFFER_BYTES);
    await this.drain();
    await this.settle();
    if (this.#failure) throw this.#failure;
  }

  /** Nothing is on its way any more, whatever became of it: before the file is closed. */
  async settle(): Promise<void> {
    await this.#writing;
    await this.#pushing;
  }
}
