/**
 * JWTs: each says who it names, at which auth revision it was made and when it ends, and is signed. Nothing is kept, so
 * any member that has the public key can judge it, after a restart too; every change of users or roles makes older
 * tokens useless for keys. Signing is left to the member that was asked: apply never touches a key.
 */
import { createPrivateKey, createPublicKey, createSecretKey, type KeyObject } from "node:crypto";
import { readFileSync } from "node:fs";
import { EtcdError } from "@etcd-ts/client/wire";
import type { JWTPayload } from "jose";
import { type Clock, dateAt } from "../lib/clock.ts";
import { parseGoDuration } from "../lib/go-format.ts";
import type { Logger } from "../lib/log.ts";
import { JWT_TTL_DEFAULT_MS, VERIFIED_TOKENS_MAX } from "./limits.ts";
import { fingerprint, INVALID_OPTIONS, type TokenProvider } from "./tokens.ts";
import type { Caller } from "./types.ts";

type Jose = typeof import("jose");
type Family = "RSA" | "ECDSA" | "Ed25519" | "HMAC";

const methods: ReadonlyMap<string, Family> = new Map([
  ...(["256", "384", "512"] as const).flatMap((bits): [string, Family][] => [
    [`RS${bits}`, "RSA"],
    [`PS${bits}`, "RSA"],
    [`ES${bits}`, "ECDSA"],
    [`HS${bits}`, "HMAC"],
  ]),
  ["EdDSA", "Ed25519"],
]);

const knownOptions: ReadonlySet<string> = new Set(["sign-method", "pub-key", "priv-key", "ttl"]);

interface Keys {
  /** Undefined: tokens can be checked, not made. */
  readonly sign: KeyObject | undefined;
  readonly verify: KeyObject;
}

export async function openJwtTokens(
  settings: ReadonlyMap<string, string>,
  { clock, logger }: { readonly clock: Clock; readonly logger: Logger },
): Promise<TokenProvider> {
  const fail = (error: unknown): never => {
    logger.error("problem loading JWT options", { error });
    throw new Error(INVALID_OPTIONS);
  };
  let ttlMs = JWT_TTL_DEFAULT_MS;
  let publicPem: Buffer | undefined;
  let privatePem: Buffer | undefined;
  try {
    const ttl = settings.get("ttl");
    if (ttl) ttlMs = parseGoDuration(ttl);
    publicPem = readKeyFile(settings.get("pub-key"));
    privatePem = readKeyFile(settings.get("priv-key"));
  } catch (error) {
    return fail(error);
  }
  const method = settings.get("sign-method") ?? "";
  if (method === "none") throw new Error("unsupported signing method: *jwt.signingMethodNone");
  const family = methods.get(method);
  if (!family) return fail(new Error("auth: invalid auth signature method"));
  const unknown = [...settings.keys()].filter((name) => !knownOptions.has(name));
  if (unknown.length > 0) logger.warn("unknown JWT options", { keys: unknown });
  const keys = family === "HMAC" ? secretKeys(privatePem) : pairedKeys(family, { publicPem, privatePem });
  // Only members that use JWTs load what checks them.
  const jose = await import("jose");
  return new JwtTokens({ jose, method, keys, ttlMs, clock, logger });
}

function readKeyFile(path: string | undefined): Buffer | undefined {
  if (!path) return undefined;
  try {
    return readFileSync(path);
  } catch (error) {
    const isMissing = (error as NodeJS.ErrnoException).code === "ENOENT";
    throw isMissing ? new Error(`open ${path}: no such file or directory`) : error;
  }
}

function secretKeys(secret: Buffer | undefined): Keys {
  if (!secret || secret.length === 0) throw new Error("auth: missing key data");
  const key = createSecretKey(secret);
  return { sign: key, verify: key };
}

const keyTypes: Readonly<Record<Exclude<Family, "HMAC">, string>> = { RSA: "rsa", ECDSA: "ec", Ed25519: "ed25519" };

function pairedKeys(
  family: Exclude<Family, "HMAC">,
  pems: { readonly publicPem: Buffer | undefined; readonly privatePem: Buffer | undefined },
): Keys {
  const parse = (pem: Buffer | undefined, create: (pem: Buffer) => KeyObject, kind: "private" | "public") => {
    if (!pem || pem.length === 0) return undefined;
    if (!/-----BEGIN [^-]+-----/.test(pem.toString("latin1"))) {
      throw new Error("invalid key: Key must be a PEM encoded PKCS1 or PKCS8 key");
    }
    let key: KeyObject | undefined;
    try {
      key = create(pem);
    } catch {
      // Not a key at all, or of the other kind: the text below says what was wanted.
    }
    if (key?.asymmetricKeyType !== keyTypes[family]) throw new Error(`key is not a valid ${family} ${kind} key`);
    return key;
  };
  const sign = parse(pems.privatePem, createPrivateKey, "private");
  const given = parse(pems.publicPem, createPublicKey, "public");
  if (!sign && !given) throw new Error("auth: missing key data");
  if (sign && given && isMismatch(createPublicKey(sign), given)) {
    throw new Error("auth: public and private keys don't match");
  }
  return { sign, verify: sign ? createPublicKey(sign) : (given as KeyObject) };
}

/** As etcd compares: only keys that differ in every part are told apart. The public key of the private one is used. */
function isMismatch(own: KeyObject, given: KeyObject): boolean {
  const a = own.export({ format: "jwk" });
  const b = given.export({ format: "jwk" });
  if (a.kty === "RSA") return a.e !== b.e && a.n !== b.n;
  if (a.kty === "EC") return a.crv !== b.crv && a.x !== b.x && a.y !== b.y;
  return a.x !== b.x;
}

interface Verified {
  readonly caller: Caller;
  readonly validUntilMs: number;
}

class JwtTokens implements TokenProvider {
  readonly #jose: Jose;
  readonly #method: string;
  readonly #keys: Keys;
  readonly #ttlMs: number;
  readonly #clock: Clock;
  readonly #logger: Logger;
  /** In the order of their last use. */
  readonly #verified = new Map<string, Verified>();

  constructor(options: {
    readonly jose: Jose;
    readonly method: string;
    readonly keys: Keys;
    readonly ttlMs: number;
    readonly clock: Clock;
    readonly logger: Logger;
  }) {
    this.#jose = options.jose;
    this.#method = options.method;
    this.#keys = options.keys;
    this.#ttlMs = options.ttlMs;
    this.#clock = options.clock;
    this.#logger = options.logger;
  }

  callerOf(token: string): Caller | undefined | Promise<Caller | undefined> {
    const verified = this.#verified.get(token);
    if (!verified) return this.#verify(token);
    this.#verified.delete(token);
    if (this.#clock.nowMs() >= verified.validUntilMs) return this.#verify(token);
    this.#verified.set(token, verified);
    return verified.caller;
  }

  async #verify(token: string): Promise<Caller | undefined> {
    let payload: JWTPayload;
    const nowMs = this.#clock.nowMs();
    try {
      const currentDate = dateAt(nowMs);
      ({ payload } = await this.#jose.jwtVerify(token, this.#keys.verify, { algorithms: [this.#method], currentDate }));
      if (payload.iat !== undefined && payload.iat * 1000 > nowMs) throw new Error("Token used before issued");
    } catch (error) {
      this.#logger.warn("failed to parse a JWT token", { "token-fingerprint": fingerprint(token), error });
      return undefined;
    }
    const { username, revision, exp } = payload;
    if (typeof username !== "string") {
      this.#logger.warn("failed to obtain user claims from jwt token");
      return undefined;
    }
    if (typeof revision !== "number" || revision < 0) {
      this.#logger.warn("failed to obtain revision claims from jwt token");
      return undefined;
    }
    const caller = { username, authRevision: Math.trunc(revision) };
    if (this.#verified.size >= VERIFIED_TOKENS_MAX) {
      for (const oldest of this.#verified.keys()) {
        this.#verified.delete(oldest);
        break;
      }
    }
    this.#verified.set(token, { caller, validUntilMs: exp === undefined ? Number.POSITIVE_INFINITY : exp * 1000 });
    return caller;
  }

  newPrefix(): string {
    return "";
  }

  assign(): string {
    return "";
  }

  async issue({ username, authRevision }: Caller): Promise<string> {
    if (!this.#keys.sign) throw new EtcdError("VerifyOnlyKey");
    const exp = Math.floor((this.#clock.nowMs() + this.#ttlMs) / 1000);
    return new this.#jose.SignJWT({ exp, revision: authRevision, username })
      .setProtectedHeader({ alg: this.#method, typ: "JWT" })
      .sign(this.#keys.sign);
  }

  enable(): void {}

  disable(): void {}

  forget(): void {}

  stop(): void {
    this.#verified.clear();
  }
}
