import { describe, expect, it } from "vitest";
import { isRevoked, revokedSerials } from "./crl.ts";

/** Made with `openssl ca -gencrl`; it names the serial number 0x0abc. */
const pem = `-----BEGIN X509 CRL-----
MIIBezBlAgEBMA0GCSqGSIb3DQEBCwUAMAwxCjAIBgNVBAMMAXgXDTI2MTEyMzE3
MzIzN1oXDTI2MTEyNTE3MzIzN1owFTATAgIKvBcNMjYwMTAxMDAwMDAwWqAOMAww
CgYDVR0UBAMCAQEwDQYJKoZIhvcNAQELBQADggEBAAaS2j2MX0W17eqRtn6rDQXL
q4eyq8yT7cl7qanJRE/6AGDZZKRX02ncnccS2k84gyEkyOYHUorwT9HizQUZsg43
X65VDRjZMso/Fnsx+f0mU1TPRyaVrbURIZxYe3/KVVRjHMbDW3FuLe+Eih3j++3v
PoDhLCg7iHqvzzpUsVB7mgdt2YtNVO+GSOmsFSL3MEKF4MGMFDTTwfCIvTf8fEJA
du02GoKs1ICxvj3BE0XiM8HxLMyhelNeEZkmdiUl6nNHZlK1t6PwVoNA4V8oTn8r
LPfnUBYyjB4YbQtTeAgyQwh6p4fJJ1b5WmM0o3gfXH7uBBvDlzJ6pnqZwjZ4tqk=
-----END X509 CRL-----`;

describe("revokedSerials()", () => {
  it("reads a list in PEM and in DER", () => {
    expect([...revokedSerials(Buffer.from(pem))]).toEqual(["abc"]);
    const der = Buffer.from(pem.replace(/-----[^-]+-----/g, ""), "base64");
    expect([...revokedSerials(der)]).toEqual(["abc"]);
  });

  it("knows a serial number in any spelling", () => {
    expect(isRevoked(Buffer.from(pem), "0ABC")).toBe(true);
    expect(isRevoked(Buffer.from(pem), "abd")).toBe(false);
  });

  it("refuses a list that is cut off", () => {
    const der = Buffer.from(pem.replace(/-----[^-]+-----/g, ""), "base64");
    for (let length = 0; length < der.length; length++) {
      expect(() => revokedSerials(der.subarray(0, length))).toThrow(/^asn1: /);
    }
  });
});
