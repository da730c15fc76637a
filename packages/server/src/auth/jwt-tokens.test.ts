import { generateKeyPairSync, type KeyObject } from "node:crypto";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { VirtualClock } from "../lib/clock.ts";
import { silentLogger } from "../lib/log.ts";
import { SeededRandom } from "../lib/random.ts";
import { openTokenProvider, type TokenProvider } from "./tokens.ts";

const folder = fs.mkdtempSync(path.join(os.tmpdir(), "auth-jwt-"));
afterAll(() => fs.rmSync(folder, { recursive: true, force: true }));

const file = (name: string) => path.join(folder, name);

function writePair(
  name: string,
  pair: { publicKey: KeyObject; privateKey: KeyObject },
  type: "pkcs8" | "pkcs1" | "sec1",
) {
  fs.writeFileSync(file(`${name}.pem`), pair.privateKey.export({ type: type as "pkcs8", format: "pem" }));
  fs.writeFileSync(file(`${name}.pub`), pair.publicKey.export({ type: "spki", format: "pem" }));
}

writePair("rsa", generateKeyPairSync("rsa", { modulusLength: 2048 }), "pkcs1");
writePair("rsa2", generateKeyPairSync("rsa", { modulusLength: 2048, publicExponent: 3 }), "pkcs8");
writePair("p256", generateKeyPairSync("ec", { namedCurve: "P-256" }), "sec1");
writePair("p384", generateKeyPairSync("ec", { namedCurve: "P-384" }), "pkcs8");
writePair("p521", generateKeyPairSync("ec", { namedCurve: "P-521" }), "pkcs8");
writePair("ed", generateKeyPairSync("ed25519"), "pkcs8");
fs.writeFileSync(file("secret"), "a secret that is shared by all members of the cluster, long enough for each");
fs.writeFileSync(file("empty"), "");

class Lines {
  readonly lines: string[] = [];
  readonly logger = {
    ...silentLogger,
    warn: (message: string) => this.lines.push(message),
    error: (message: string) => this.lines.push(message),
  };
}

async function open(spec: string, clock = new VirtualClock(), lines = new Lines()): Promise<TokenProvider> {
  return openTokenProvider({
    spec: spec.replaceAll("@", `${folder}/`),
    simpleTtlSeconds: 300,
    waitForIndex: () => undefined,
    clock,
    random: new SeededRandom(1),
    logger: lines.logger,
  });
}

const refusal = (spec: string, lines?: Lines) =>
  open(spec, undefined, lines).then(
    () => "ok",
    (error: Error) => error.message.replaceAll(folder, ""),
  );

const ann = { username: "ann", authRevision: 7 };

describe("JWTs", () => {
  it.each([
    ["RS256", "rsa"],
    ["RS384", "rsa"],
    ["RS512", "rsa2"],
    ["PS256", "rsa"],
    ["PS384", "rsa"],
    ["PS512", "rsa"],
    ["ES256", "p256"],
    ["ES384", "p384"],
    ["ES512", "p521"],
    ["EdDSA", "ed"],
  ])("%s: a member with both keys signs, one with the public key checks", async (method, key) => {
    const signer = await open(`jwt,sign-method=${method},priv-key=@${key}.pem,pub-key=@${key}.pub`);
    const checker = await open(`jwt,sign-method=${method},pub-key=@${key}.pub`);
    expect(signer.newPrefix()).toBe("");
    expect(signer.assign({ username: "ann", prefix: "", index: 1 })).toBe("");
    const token = await signer.issue(ann, "");
    const [header, claims] = token.split(".", 2).map((part) => JSON.parse(Buffer.from(part, "base64url").toString()));
    expect(header).toEqual({ alg: method, typ: "JWT" });
    expect(claims).toEqual({ exp: 1_700_000_300, revision: 7, username: "ann" });
    expect(await signer.callerOf(token, 9, undefined)).toEqual(ann);
    expect(await checker.callerOf(token, 9, undefined)).toEqual(ann);
    await expect(checker.issue(ann, "")).rejects.toMatchObject({ kind: "VerifyOnlyKey" });
  });

  it.each(["HS256", "HS384", "HS512"])("%s: the private key is the shared secret", async (method) => {
    const tokens = await open(`jwt,sign-method=${method},priv-key=@secret`);
    expect(await tokens.callerOf(await tokens.issue(ann, ""), 9, undefined)).toEqual(ann);
  });

  it("end after their time to live, also when they are known already", async () => {
    const clock = new VirtualClock();
    const tokens = await open("jwt,sign-method=HS256,priv-key=@secret,ttl=1m30s", clock);
    const token = await tokens.issue(ann, "");
    expect(await tokens.callerOf(token, 9, undefined)).toEqual(ann);
    clock.advance(89_000);
    expect(tokens.callerOf(token, 9, undefined)).toEqual(ann);
    clock.advance(1000);
    expect(await tokens.callerOf(token, 9, undefined)).toBeUndefined();
  });

  it("of another method, another key, or with other claims name nobody", async () => {
    const lines = new Lines();
    const { SignJWT } = await import("jose");
    const tokens = await open("jwt,sign-method=HS256,priv-key=@secret", undefined, lines);
    const secret = fs.readFileSync(file("secret"));
    const forge = (claims: Record<string, unknown>, alg = "HS256", key: Uint8Array = secret) =>
      new SignJWT(claims).setProtectedHeader({ alg, typ: "JWT" }).sign(key);
    const exp = 1_700_000_100;
    const good = { username: "ann", revision: 7, exp };
    expect(await tokens.callerOf(await forge(good), 9, undefined)).toEqual(ann);
    const none = `${Buffer.from('{"alg":"none","typ":"JWT"}').toString("base64url")}.${Buffer.from(
      JSON.stringify(good),
    ).toString("base64url")}.`;
    for (const token of [
      await forge(good, "HS384"),
      await forge(good, "HS256", Buffer.from("another secret, long enough for all")),
      await forge({ ...good, username: 7 }),
      await forge({ ...good, revision: "7" }),
      await forge({ ...good, exp: 1_600_000_000 }),
      await forge({ ...good, nbf: exp }),
      await forge({ ...good, iat: exp }),
      none,
      "",
      "x.y.z",
    ]) {
      expect(await tokens.callerOf(token, 9, undefined), token).toBeUndefined();
    }
    expect(new Set(lines.lines)).toEqual(
      new Set([
        "failed to parse a JWT token",
        "failed to obtain user claims from jwt token",
        "failed to obtain revision claims from jwt token",
      ]),
    );
  });

  it("are remembered, but not without bound", async () => {
    const tokens = await open("jwt,sign-method=HS256,priv-key=@secret");
    const first = await tokens.issue(ann, "");
    await tokens.callerOf(first, 9, undefined);
    expect(tokens.callerOf(first, 9, undefined)).toEqual(ann);
    for (let i = 0; i < 1100; i++) {
      await tokens.callerOf(await tokens.issue({ ...ann, authRevision: i }, ""), 9, undefined);
    }
    expect(tokens.callerOf(first, 9, undefined)).toBeInstanceOf(Promise);
  });
});

describe("--auth-token", () => {
  const invalid = "auth: invalid auth options";

  it.each([
    ["bearer", invalid],
    ["simple,x", invalid],
    ["simple,a=b=c", invalid],
    ["jwt,ttl=1m,ttl=2m", invalid],
    ["jwt", invalid],
    ["jwt,sign-method=XX256", invalid],
    ["jwt,sign-method=RS256,ttl=soon,priv-key=@rsa.pem", invalid],
    ["jwt,sign-method=RS256,priv-key=@missing", invalid],
    ["jwt,sign-method=none", "unsupported signing method: *jwt.signingMethodNone"],
    ["jwt,sign-method=HS256", "auth: missing key data"],
    ["jwt,sign-method=RS256", "auth: missing key data"],
    ["jwt,sign-method=ES256,priv-key=@empty", "auth: missing key data"],
    ["jwt,sign-method=RS256,priv-key=@secret", "invalid key: Key must be a PEM encoded PKCS1 or PKCS8 key"],
    ["jwt,sign-method=RS256,priv-key=@p256.pem", "key is not a valid RSA private key"],
    ["jwt,sign-method=PS256,pub-key=@p256.pub", "key is not a valid RSA public key"],
    ["jwt,sign-method=ES256,priv-key=@rsa.pem", "key is not a valid ECDSA private key"],
    ["jwt,sign-method=ES256,pub-key=@rsa.pub", "key is not a valid ECDSA public key"],
    ["jwt,sign-method=EdDSA,priv-key=@rsa.pem", "key is not a valid Ed25519 private key"],
    ["jwt,sign-method=RS256,priv-key=@rsa.pem,pub-key=@rsa2.pub", "auth: public and private keys don't match"],
    ["jwt,sign-method=ES256,priv-key=@p256.pem,pub-key=@p384.pub", "auth: public and private keys don't match"],
    ["simple", "ok"],
    ["simple,ignored=1", "ok"],
    ["", "ok"],
    ["jwt,sign-method=ES256,priv-key=@p256.pem", "ok"],
  ])("%s: %s", async (spec, text) => {
    expect(await refusal(spec)).toBe(text);
  });

  it("says what was wrong, and what it does not know", async () => {
    const lines = new Lines();
    await refusal("jwt,sign-method=XX256", lines);
    await refusal("jwt,sign-method=HS256,priv-key=@secret,colour=red", lines);
    await refusal("simple", lines);
    await refusal("bearer", lines);
    await refusal("simple,x", lines);
    expect(lines.lines).toEqual([
      "problem loading JWT options",
      "unknown JWT options",
      "simple token is not cryptographically signed",
      "unknown token type",
      "invalid token option",
    ]);
  });

  it("empty: nobody gets a token, and none is valid", async () => {
    const tokens = await open("");
    expect(tokens.callerOf("x", 1, undefined)).toBeUndefined();
    expect(() => tokens.issue(ann, "")).toThrow("authentication failed");
  });
});
