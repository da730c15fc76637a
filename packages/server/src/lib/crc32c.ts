/**
 * CRC-32C (Castagnoli, reflected polynomial 0x82F63B78), the checksum of etcd's WAL, `.snap` files and hashes.
 * The check value of "123456789" is 0xe3069283.
 *
 * Short inputs are done here, eight bytes at a step. Longer ones are copied into the memory of a WebAssembly function
 * of some three hundred bytes, which takes sixteen at a step: four to five times as quick, the copy included.
 */

const POLYNOMIAL = 0x82f63b78;
const SLICES = 16;

const TABLES: readonly Uint32Array[] = (() => {
  const tables = Array.from({ length: SLICES }, () => new Uint32Array(256));
  const first = tables[0] as Uint32Array;
  for (let n = 0; n < 256; n++) {
    let c = n;
    for (let k = 0; k < 8; k++) c = c & 1 ? (c >>> 1) ^ POLYNOMIAL : c >>> 1;
    first[n] = c >>> 0;
  }
  for (let t = 1; t < SLICES; t++) {
    const previous = tables[t - 1] as Uint32Array;
    const table = tables[t] as Uint32Array;
    for (let n = 0; n < 256; n++) {
      const c = previous[n] as number;
      table[n] = ((first[c & 0xff] as number) ^ (c >>> 8)) >>> 0;
    }
  }
  return tables;
})();

const [T0, T1, T2, T3, T4, T5, T6, T7] = TABLES as unknown as [
  Uint32Array,
  Uint32Array,
  Uint32Array,
  Uint32Array,
  Uint32Array,
  Uint32Array,
  Uint32Array,
  Uint32Array,
];

/** Below it the call costs more than it saves. */
const SHORT_BYTES = 64;

/**
 * The checksum of `bytes` appended to what gave `previous` (0 to begin), as an unsigned 32-bit number:
 * `crc32c(b, crc32c(a)) === crc32c(ab)`.
 */
export function crc32c(bytes: Uint8Array, previous = 0): number {
  const { length } = bytes;
  if (length < SHORT_BYTES) return shortCrc(bytes, previous);
  common ??= crcMemory(COMMON_BYTES);
  const { bytes: scratch, crc } = common;
  if (length <= COMMON_BYTES) {
    scratch.set(bytes, 0);
    return crc(0, length, previous);
  }
  let sum = previous;
  for (let at = 0; at < length; at += COMMON_BYTES) {
    const piece = bytes.subarray(at, at + COMMON_BYTES);
    scratch.set(piece, 0);
    sum = crc(0, piece.length, sum);
  }
  return sum;
}

function shortCrc(bytes: Uint8Array, previous: number): number {
  let crc = ~previous;
  const length = bytes.length;
  let i = 0;
  // Indexes are in range by the loop bounds; `as number` only tells the compiler so.
  for (; i + 8 <= length; i += 8) {
    const low =
      crc ^
      ((bytes[i] as number) |
        ((bytes[i + 1] as number) << 8) |
        ((bytes[i + 2] as number) << 16) |
        ((bytes[i + 3] as number) << 24));
    crc =
      (T7[low & 0xff] as number) ^
      (T6[(low >>> 8) & 0xff] as number) ^
      (T5[(low >>> 16) & 0xff] as number) ^
      (T4[low >>> 24] as number) ^
      (T3[bytes[i + 4] as number] as number) ^
      (T2[bytes[i + 5] as number] as number) ^
      (T1[bytes[i + 6] as number] as number) ^
      (T0[bytes[i + 7] as number] as number);
  }
  for (; i < length; i++) crc = (crc >>> 8) ^ (T0[(crc ^ (bytes[i] as number)) & 0xff] as number);
  return ~crc >>> 0;
}

/** Memory whose bytes can be summed where they are, for those who read files straight into it. */
export interface CrcMemory {
  readonly bytes: Uint8Array;
  /** The checksum of `length` bytes from `offset` on, appended to what gave `previous`. */
  readonly crc: (offset: number, length: number, previous: number) => number;
  /** Moves `length` bytes within `bytes`: a call that costs less than a Buffer's `copy`. */
  readonly copy: (to: number, from: number, length: number) => void;
}

/** The part of the runtime's WebAssembly that is used here; the compiler knows it from browsers alone. */
declare namespace WebAssembly {
  class Module {
    constructor(bytes: Uint8Array);
  }
  class Memory {
    constructor(pages: { readonly initial: number; readonly maximum: number });
    readonly buffer: ArrayBuffer;
  }
  class Instance {
    constructor(module: Module, imports: { readonly m: { readonly m: Memory } });
    readonly exports: Readonly<Record<string, unknown>>;
  }
}

const COMMON_BYTES = 48 * 1024;
const WASM_PAGE_BYTES = 65_536;
const TABLES_BYTES = SLICES * 1024;
let common: CrcMemory | undefined;
let module: WebAssembly.Module | undefined;

export function crcMemory(bytes: number): CrcMemory {
  module ??= new WebAssembly.Module(program());
  const pages = Math.ceil((TABLES_BYTES + bytes) / WASM_PAGE_BYTES);
  const memory = new WebAssembly.Memory({ initial: pages, maximum: pages });
  const { exports } = new WebAssembly.Instance(module, { m: { m: memory } });
  const update = exports["c"] as (at: number, length: number, previous: number) => number;
  const move = exports["m"] as (to: number, from: number, length: number) => void;
  const words = new Uint32Array(memory.buffer, 0, TABLES_BYTES / 4);
  for (let t = 0; t < SLICES; t++) words.set(TABLES[t] as Uint32Array, t * 256);
  return {
    bytes: new Uint8Array(memory.buffer, TABLES_BYTES, bytes),
    crc: (offset, length, previous) => update(TABLES_BYTES + offset, length, previous) >>> 0,
    copy: (to, from, length) => move(TABLES_BYTES + to, TABLES_BYTES + from, length),
  };
}

/**
 * Two functions, as WebAssembly. "c": (at, length, crc) -> crc over an imported memory that begins with the sixteen tables.
 *
 *     crc = ~crc
 *     while (length >= 16) crc = T15[byte 0 ^ crc] ^ ... ^ T0[byte 15], at += 16, length -= 16
 *     while (length > 0)   crc = T0[(crc ^ byte) & 255] ^ (crc >>> 8), at += 1, length -= 1
 *     return ~crc
 *
 * "m": (to, from, length), which is one instruction.
 */
function program(): Uint8Array<ArrayBuffer> {
  const [at, length, crc, word, sum] = [0, 1, 2, 3, 4];
  const [get, set, tee] = [(n: number) => [0x20, n], (n: number) => [0x21, n], (n: number) => [0x22, n]];
  const constant = (n: number): number[] => {
    const bytes: number[] = [0x41];
    for (let rest = n | 0; ; rest >>= 7) {
      const isLast = rest >= -64 && rest < 64;
      bytes.push((rest & 0x7f) | (isLast ? 0 : 0x80));
      if (isLast) return bytes;
    }
  };
  const unsigned = (n: number): number[] => (n < 128 ? [n] : [(n & 0x7f) | 0x80, ...unsigned(n >>> 7)]);
  const [loadWord, loadByte] = [(n: number) => [0x28, 2, ...unsigned(n)], (n: number) => [0x2d, 0, ...unsigned(n)]];
  const [and, xor, add, subtract, shiftLeft, shiftRight] = [[0x71], [0x73], [0x6a], [0x6b], [0x74], [0x76]];
  const [below, isZero] = [[0x49], [0x45]];
  const [block, loop, end, branch, branchIf] = [[0x02, 0x40], [0x03, 0x40], [0x0b], [0x0c], [0x0d]];
  /** The entry of a table for byte `n` of the local `word`. */
  const look = (table: number, n: number): number[] => [
    ...get(word),
    ...(n === 0 ? [...constant(2), ...shiftLeft] : [...constant(8 * n - 2), ...shiftRight]),
    ...constant(1020),
    ...and,
    ...loadWord(table * 1024),
  ];
  // What depends on the previous step comes last, so that the rest need not wait for it.
  const step = [3, 2, 1, 0].flatMap((w) => [
    ...get(at),
    ...loadWord(4 * w),
    ...(w === 0 ? [...get(crc), ...xor] : []),
    ...set(word),
    ...[0, 1, 2, 3].flatMap((n) => [
      ...look(15 - 4 * w - n, n),
      ...(w < 3 || n > 0 ? [...get(sum), ...xor] : []),
      ...set(sum),
    ]),
  ]);
  const advance = (n: number): number[] => [
    ...get(at),
    ...constant(n),
    ...add,
    ...set(at),
    ...get(length),
    ...constant(n),
    ...subtract,
    ...set(length),
  ];
  const body = [
    ...[1, 2, 0x7f],
    ...[...get(crc), ...constant(-1), ...xor, ...set(crc)],
    ...[...block, ...loop, ...get(length), ...constant(16), ...below, ...branchIf, 1],
    ...[...step, ...get(sum), ...set(crc), ...advance(16), ...branch, 0, ...end, ...end],
    ...[...block, ...loop, ...get(length), ...isZero, ...branchIf, 1],
    ...[...get(crc), ...get(at), ...loadByte(0), ...xor, ...constant(255), ...and, ...constant(2), ...shiftLeft],
    ...[...loadWord(0), ...get(crc), ...constant(8), ...shiftRight, ...xor, ...tee(crc), ...set(crc)],
    ...[...advance(1), ...branch, 0, ...end, ...end],
    ...[...get(crc), ...constant(-1), ...xor, ...end],
  ];
  const move = [0, ...get(0), ...get(1), ...get(2), ...[0xfc, 10, 0, 0], ...end];
  const section = (id: number, bytes: readonly number[]): number[] => [id, ...unsigned(bytes.length), ...bytes];
  return Uint8Array.of(
    ...[0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...section(1, [2, ...[0x60, 3, 0x7f, 0x7f, 0x7f, 1, 0x7f], ...[0x60, 3, 0x7f, 0x7f, 0x7f, 0]]),
    // A memory of at least one page, "m" of "m".
    ...section(2, [1, 1, 0x6d, 1, 0x6d, 2, 0, 1]),
    ...section(3, [2, 0, 1]),
    ...section(7, [2, ...[1, 0x63, 0, 0], ...[1, 0x6d, 0, 1]]),
    ...section(10, [2, ...unsigned(body.length), ...body, ...unsigned(move.length), ...move]),
  );
}

/** Powers x^(8 * 2^k) modulo the polynomial, for {@link crc32cCombine}. */
const powers: number[] = [];

function multiply(a: number, b: number): number {
  let product = 0;
  let factor = b;
  for (let mask = 0x80000000; mask !== 0; mask >>>= 1) {
    if (a & mask) product ^= factor;
    factor = factor & 1 ? (factor >>> 1) ^ POLYNOMIAL : factor >>> 1;
  }
  return product >>> 0;
}

/** The checksum of `ab` from those of `a` and `b`, and the length of `b`: so parts can be summed apart. */
export function crc32cCombine(a: number, b: number, lengthOfB: number): number {
  let shifted = a;
  let rest = lengthOfB;
  for (let k = 0; rest > 0; k++) {
    if (powers.length === 0) powers.push(0x00800000);
    if (powers[k] === undefined) powers[k] = multiply(powers[k - 1] as number, powers[k - 1] as number);
    if (rest % 2 === 1) shifted = multiply(shifted, powers[k] as number);
    rest = Math.floor(rest / 2);
  }
  return (shifted ^ b) >>> 0;
}
