/**
 * The window of MsgApp that are on their way to one follower, oldest first: a ring that grows to `messagesMax` slots.
 * Each message is known by the index of its last entry and the bytes of its payloads.
 */
import { assert } from "../lib/assert.ts";

export class Inflights {
  readonly messagesMax: number;
  readonly bytesMax: number;
  #start = 0;
  #count = 0;
  #bytes = 0;
  #indexes: number[] = [];
  #sizes: number[] = [];

  constructor(messagesMax: number, bytesMax: number) {
    this.messagesMax = messagesMax;
    this.bytesMax = bytesMax;
  }

  get count(): number {
    return this.#count;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** One more message would be too many, or the bytes under way have reached their bound. */
  get isFull(): boolean {
    return this.#count === this.messagesMax || this.#bytes >= this.bytesMax;
  }

  /** Indexes must not fall from call to call. */
  add(index: number, bytes: number): void {
    assert(!this.isFull, "cannot add into a Full inflights");
    if (this.#count === this.#indexes.length) this.#grow();
    const slots = this.#indexes.length;
    let at = this.#start + this.#count;
    if (at >= slots) at -= slots;
    this.#indexes[at] = index;
    this.#sizes[at] = bytes;
    this.#count++;
    this.#bytes += bytes;
  }

  /** Frees all messages whose last entry is at or before `index`. */
  freeUpTo(index: number): void {
    const slots = this.#indexes.length;
    while (this.#count > 0 && (this.#indexes[this.#start] as number) <= index) {
      this.#bytes -= this.#sizes[this.#start] as number;
      this.#count--;
      this.#start++;
      if (this.#start === slots) this.#start = 0;
    }
    if (this.#count === 0) this.#start = 0;
  }

  reset(): void {
    this.#start = 0;
    this.#count = 0;
    this.#bytes = 0;
  }

  /** Doubles the slots and puts the oldest message first. */
  #grow(): void {
    const slots = Math.min(Math.max(1, this.#indexes.length * 2), this.messagesMax);
    const rotate = (ring: number[]): number[] => {
      const next = [...ring.slice(this.#start), ...ring.slice(0, this.#start)];
      while (next.length < slots) next.push(0);
      return next;
    };
    this.#indexes = rotate(this.#indexes);
    this.#sizes = rotate(this.#sizes);
    this.#start = 0;
  }
}
