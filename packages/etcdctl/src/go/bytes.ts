// Text that may hide bytes. Arguments, and strings written with Go escapes, can hold bytes that are no UTF-8. A string
// carries such a byte as the lone surrogate U+DC00 + byte (what Python calls surrogateescape): it survives every string
// operation here and becomes the same byte again in `toBytes`.

const LONE_SURROGATE = /[\udc80-\udcff]/;

/** The bytes a string stands for: UTF-8, and single bytes for the escapes described above. */
export function toBytes(text: string): Uint8Array {
  if (!LONE_SURROGATE.test(text)) return Buffer.from(text, "utf8");
  const parts: Uint8Array[] = [];
  for (const character of text) {
    const code = character.charCodeAt(0);
    const isByte = character.length === 1 && code >= 0xdc80 && code <= 0xdcff;
    parts.push(isByte ? Uint8Array.of(code - 0xdc00) : Buffer.from(character, "utf8"));
  }
  return Buffer.concat(parts);
}

/** The reverse of `toBytes`: valid UTF-8 becomes characters, every other byte its escape. */
export function fromBytes(bytes: Uint8Array): string {
  let out = "";
  for (const { text, byte } of runes(bytes)) out += byte === undefined ? text : String.fromCharCode(0xdc00 + byte);
  return out;
}

export interface Rune {
  /** The character; empty where the byte is no UTF-8. */
  readonly text: string;
  /** The byte that is no UTF-8. */
  readonly byte?: number;
}

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Decodes UTF-8 as Go does: a bad sequence costs one byte, and is handed out as that byte. */
export function* runes(bytes: Uint8Array): Generator<Rune> {
  for (let i = 0; i < bytes.length; ) {
    const lead = bytes[i] as number;
    const length =
      lead < 0x80 ? 1 : lead >= 0xc2 && lead < 0xe0 ? 2 : lead >= 0xe0 && lead < 0xf0 ? 3 : lead < 0xf5 ? 4 : 0;
    if (lead < 0x80) {
      yield { text: String.fromCharCode(lead) };
      i++;
      continue;
    }
    let text = "";
    if (length > 1 && i + length <= bytes.length) {
      try {
        text = utf8.decode(bytes.subarray(i, i + length));
      } catch {
        // Not UTF-8: the lead byte alone is handed out below.
      }
    }
    if (text === "") {
      yield { text: "", byte: lead };
      i++;
    } else {
      yield { text };
      i += length;
    }
  }
}
