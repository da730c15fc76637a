/** Chance. Rooms take a {@link Random}; one built from a seed repeats itself. */
import { randomFillSync } from "node:crypto";

export interface Random {
  /** An integer, 0 <= n < bound; bound from 1 to 2^32. */
  below(bound: number): number;
  /** 0 <= x < 1. */
  fraction(): number;
  /** 64 random bits, unsigned. */
  bits64(): bigint;
}

class SystemRandom implements Random {
  readonly #pool = new Uint32Array(256);
  #used = this.#pool.length;

  #next(): number {
    if (this.#used === this.#pool.length) {
      randomFillSync(this.#pool);
      this.#used = 0;
    }
    return this.#pool[this.#used++] as number;
  }

  below(bound: number): number {
    return Math.floor((this.#next() / 2 ** 32) * bound);
  }

  fraction(): number {
    return this.#next() / 2 ** 32;
  }

  bits64(): bigint {
    return (BigInt(this.#next()) << 32n) | BigInt(this.#next());
  }
}

export const systemRandom: Random = new SystemRandom();

/** xoshiro128** (Blackman, Vigna 2018), seeded through splitmix32. The same seed gives the same sequence for ever. */
export class SeededRandom implements Random {
  readonly #state = new Uint32Array(4);

  constructor(seed: number) {
    let z = seed >>> 0;
    for (let i = 0; i < 4; i++) {
      z = (z + 0x9e3779b9) >>> 0;
      let t = z ^ (z >>> 16);
      t = Math.imul(t, 0x21f0aaad);
      t ^= t >>> 15;
      t = Math.imul(t, 0x735a2d97);
      this.#state[i] = (t ^ (t >>> 15)) >>> 0;
    }
  }

  #next(): number {
    const s = this.#state as unknown as [number, number, number, number];
    const rotl = (x: number, k: number) => (x << k) | (x >>> (32 - k));
    const result = Math.imul(rotl(Math.imul(s[1], 5), 7), 9) >>> 0;
    const t = s[1] << 9;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotl(s[3], 11);
    return result;
  }

  below(bound: number): number {
    return Math.floor((this.#next() / 2 ** 32) * bound);
  }

  fraction(): number {
    return this.#next() / 2 ** 32;
  }

  bits64(): bigint {
    return (BigInt(this.#next()) << 32n) | BigInt(this.#next());
  }
}
