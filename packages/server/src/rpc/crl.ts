/**
 * Certificate revocation lists, PEM or DER (RFC 5280, section 5): only the serial numbers are of interest. The list is
 * trusted as a file, as etcd does; its signature is not looked at.
 */

const SEQUENCE = 0x30;
const INTEGER = 0x02;
const UTC_TIME = 0x17;
const GENERALIZED_TIME = 0x18;

interface Element {
  readonly tag: number;
  readonly content: Buffer;
}

class DerReader {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  get tag(): number | undefined {
    return this.#bytes[this.#at];
  }

  #byte(): number {
    const byte = this.#bytes[this.#at++];
    if (byte === undefined) throw new Error("asn1: syntax error: data truncated");
    return byte;
  }

  next(): Element {
    const tag = this.#byte();
    let length = this.#byte();
    if (length >= 0x80) {
      let bytes = length & 0x7f;
      if (bytes === 0 || bytes > 4) throw new Error("asn1: syntax error: length too large");
      for (length = 0; bytes > 0; bytes--) length = length * 256 + this.#byte();
    }
    const end = this.#at + length;
    if (end > this.#bytes.length) throw new Error("asn1: syntax error: data truncated");
    const content = this.#bytes.subarray(this.#at, end);
    this.#at = end;
    return { tag, content };
  }

  sequence(): DerReader {
    const { tag, content } = this.next();
    if (tag !== SEQUENCE) throw new Error("asn1: structure error: tags don't match");
    return new DerReader(content);
  }
}

const isTime = (tag: number | undefined) => tag === UTC_TIME || tag === GENERALIZED_TIME;

/** Serial numbers on the list, as lower-case hex without leading zeros. Throws on what is no list. */
export function revokedSerials(list: Buffer): ReadonlySet<string> {
  const pem = /-----BEGIN X509 CRL-----([^-]+)-----END X509 CRL-----/.exec(list.toString("latin1"))?.[1];
  const fields = new DerReader(pem === undefined ? list : Buffer.from(pem, "base64")).sequence().sequence();
  if (fields.tag === INTEGER) fields.next(); // version
  fields.next(); // signature algorithm
  fields.next(); // issuer
  if (!isTime(fields.next().tag)) throw new Error("asn1: structure error: a time is missing");
  if (isTime(fields.tag)) fields.next(); // next update
  const serials = new Set<string>();
  if (fields.tag !== SEQUENCE) return serials;
  const entries = fields.sequence();
  while (entries.tag !== undefined) {
    const { tag, content } = entries.sequence().next();
    if (tag !== INTEGER) throw new Error("asn1: structure error: a serial number is missing");
    serials.add(plainHex(content.toString("hex")));
  }
  return serials;
}

function plainHex(hex: string): string {
  return hex.toLowerCase().replace(/^0+(?=.)/, "");
}

export function isRevoked(list: Buffer, serialNumber: string): boolean {
  return revokedSerials(list).has(plainHex(serialNumber));
}
