/**
 * HPACK's Huffman code (RFC 7541, appendix B). It is canonical: codes of one length are consecutive numbers in the order
 * of their symbols, so the lengths say everything. Decoding walks a table of states four bits at a time.
 */

/** Bits of the code of each byte, and at 256 of the end-of-string symbol. */
const LENGTHS: readonly number[] = [
  13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28,
  28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
  13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6,
  5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23,
  22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22,
  23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, 26, 26,
  20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27,
  27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27,
  27, 27, 27, 26, 30,
];
const EOS = 256;
const LONGEST = 30;

/** The code of each symbol, right-aligned. */
const CODES: readonly number[] = (() => {
  const codes = new Array<number>(LENGTHS.length).fill(0);
  let code = 0;
  for (let length = 1; length <= LONGEST; length++) {
    code *= 2;
    LENGTHS.forEach((bits, symbol) => {
      if (bits === length) codes[symbol] = code++;
    });
  }
  return codes;
})();

/*
 * The states are the inner nodes of the code tree; state 0 is the root. For a state and four bits: the next state, the
 * byte that was completed on the way (-1: none; no code is shorter than five bits, so there is at most one), or failure.
 */
const FAILED = 0xffff;
const { NEXT, SYMBOL, IS_PADDING } = (() => {
  const children: [number, number][] = [[0, 0]];
  // Leaves are stored as -1 - symbol; 0 is "not there", which the root never is to a parent.
  LENGTHS.forEach((bits, symbol) => {
    let node = 0;
    for (let bit = bits - 1; bit >= 0; bit--) {
      const side = (Math.floor((CODES[symbol] as number) / 2 ** bit) & 1) as 0 | 1;
      const pair = children[node] as [number, number];
      if (bit === 0) pair[side] = -1 - symbol;
      else {
        if (pair[side] === 0) pair[side] = children.push([0, 0]) - 1;
        node = pair[side];
      }
    }
  });
  const next = new Uint16Array(children.length * 16);
  const symbols = new Int16Array(children.length * 16).fill(-1);
  for (let state = 0; state < children.length; state++) {
    for (let nibble = 0; nibble < 16; nibble++) {
      const at = state * 16 + nibble;
      let node = state;
      for (let bit = 3; bit >= 0 && node !== FAILED; bit--) {
        const child = (children[node] as [number, number])[((nibble >> bit) & 1) as 0 | 1];
        if (child >= 0) node = child;
        else if (child === -1 - EOS) node = FAILED;
        else {
          symbols[at] = -1 - child;
          node = 0;
        }
      }
      next[at] = node;
    }
  }
  // What may be left over at the end: fewer than eight bits, all ones (the beginning of the end-of-string code).
  const padding = new Uint8Array(children.length);
  let node = 0;
  for (let bits = 0; bits < 8; bits++) {
    padding[node] = 1;
    node = (children[node] as [number, number])[1];
  }
  return { NEXT: next, SYMBOL: symbols, IS_PADDING: padding };
})();

/** The text of `bytes[start..end)`, a char a byte; undefined when it is no valid code or longer than `charsMax`. */
export function huffmanDecode(bytes: Uint8Array, start: number, end: number, charsMax: number): string | undefined {
  let text = "";
  let state = 0;
  for (let i = start; i < end; i++) {
    const byte = bytes[i] as number;
    let at = state * 16 + (byte >> 4);
    state = NEXT[at] as number;
    if (state === FAILED) return undefined;
    let symbol = SYMBOL[at] as number;
    if (symbol >= 0) text += String.fromCharCode(symbol);
    at = state * 16 + (byte & 15);
    state = NEXT[at] as number;
    if (state === FAILED) return undefined;
    symbol = SYMBOL[at] as number;
    if (symbol >= 0) text += String.fromCharCode(symbol);
    if (text.length > charsMax) return undefined;
  }
  return IS_PADDING[state] === 1 ? text : undefined;
}

/** Bytes that {@link huffmanEncode} makes of a text of chars 0..255. */
export function huffmanLength(text: string): number {
  let bits = 0;
  for (let i = 0; i < text.length; i++) bits += LENGTHS[text.charCodeAt(i)] as number;
  return Math.ceil(bits / 8);
}

/** Writes the code of a text of chars 0..255 at `at`; gives the position after it. */
export function huffmanEncode(text: string, out: Uint8Array, at: number): number {
  let position = at;
  let pending = 0;
  let pendingBits = 0;
  for (let i = 0; i < text.length; i++) {
    const symbol = text.charCodeAt(i);
    let code = CODES[symbol] as number;
    let bits = LENGTHS[symbol] as number;
    // At most seven bits wait, so codes go in pieces that keep the sum within 31.
    while (bits > 0) {
      const take = Math.min(bits, 16);
      pending = (pending << take) | Math.floor(code / 2 ** (bits - take));
      code %= 2 ** (bits - take);
      bits -= take;
      pendingBits += take;
      while (pendingBits >= 8) {
        pendingBits -= 8;
        out[position++] = (pending >>> pendingBits) & 0xff;
      }
      pending &= (1 << pendingBits) - 1;
    }
  }
  if (pendingBits > 0) out[position++] = ((pending << (8 - pendingBits)) | (0xff >> pendingBits)) & 0xff;
  return position;
}
