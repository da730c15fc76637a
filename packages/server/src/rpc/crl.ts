/** Certificate revocation lists, PEM or DER. */
import { X509Crl } from "@peculiar/x509";

/** Whether the list names the serial number (hex). Throws on a list that cannot be read. */
export function isRevoked(list: Buffer, serialNumber: string): boolean {
  const text = list.toString("latin1");
  const pem = /-----BEGIN X509 CRL-----[^-]+-----END X509 CRL-----/.exec(text)?.[0];
  const crl = new X509Crl(pem ?? new Uint8Array(list));
  const wanted = BigInt(`0x${serialNumber}`);
  return crl.entries.some((entry) => BigInt(`0x${entry.serialNumber}`) === wanted);
}
