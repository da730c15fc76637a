/**
 * Tokens: what a caller shows instead of its password. Two kinds, chosen by `--auth-token`: simple ones, which each
 * member remembers, and JWTs, which each member can check by itself.
 */
import { createHash } from "node:crypto";
import { EtcdError } from "@etcd-ts/client/wire";
import type { Clock } from "../lib/clock.ts";
import type { Logger } from "../lib/log.ts";
import type { Random } from "../lib/random.ts";
import { openJwtTokens } from "./jwt-tokens.ts";
import { SimpleTokens, type WaitForIndex } from "./simple-tokens.ts";
import type { Caller } from "./types.ts";

/** The part that apply touches: the same on every member, and synchronous. */
export interface TokenStore {
  /** An Authenticate was applied. Gives the token, or an empty text when {@link TokenProvider.issue} makes it. */
  assign(grant: { readonly username: string; readonly prefix: string; readonly index: number }): string;
  /** Auth was switched on. */
  enable(): void;
  /** Auth was switched off: no token is valid any more. */
  disable(): void;
  /** The user is gone or has another password. */
  forget(username: string): void;
}

export interface TokenProvider extends TokenStore {
  /** Who this token names, or undefined for one that is not valid. `authRevision` is the store's current one. */
  callerOf(
    token: string,
    authRevision: number,
    signal: AbortSignal | undefined,
  ): Caller | undefined | Promise<Caller | undefined>;
  /** What goes into the log to make the token from. */
  newPrefix(): string;
  /** The token for who asked, after Authenticate was applied and gave `assigned`. */
  issue(caller: Caller, assigned: string): string | Promise<string>;
  stop(): void;
}

export interface TokenOptions {
  /** `--auth-token`. */
  readonly spec: string;
  readonly simpleTtlSeconds: number;
  readonly waitForIndex: WaitForIndex;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
}

export const INVALID_OPTIONS = "auth: invalid auth options";

/** What stands for a token in the log. */
export function fingerprint(token: string): string {
  return createHash("sha256").update(token).digest("hex").substring(0, 12);
}

/** Rejects with etcd's text when the options are not valid. */
export async function openTokenProvider(options: TokenOptions): Promise<TokenProvider> {
  const { spec, logger } = options;
  const [type = "", ...pairs] = spec.split(",");
  const settings = new Map<string, string>();
  for (const pair of pairs) {
    const [name, value, ...rest] = pair.split("=");
    if (name === undefined || value === undefined || rest.length > 0) {
      logger.error("invalid token option", { option: spec });
      throw new Error(INVALID_OPTIONS);
    }
    if (settings.has(name)) {
      logger.error("invalid token option", { option: spec, "duplicate-parameter": name });
      throw new Error(INVALID_OPTIONS);
    }
    settings.set(name, value);
  }
  switch (type) {
    case "simple":
      logger.warn("simple token is not cryptographically signed");
      return new SimpleTokens(options);
    case "jwt":
      return openJwtTokens(settings, options);
    case "":
      return noTokens;
    default:
      logger.warn("unknown token type", { type, error: INVALID_OPTIONS });
      throw new Error(INVALID_OPTIONS);
  }
}

/** `--auth-token=`: users are named by their certificates alone. */
const noTokens: TokenProvider = {
  callerOf: () => undefined,
  newPrefix: () => "",
  assign: () => "",
  issue() {
    throw new EtcdError("AuthFailed");
  },
  enable() {},
  disable() {},
  forget() {},
  stop() {},
};
