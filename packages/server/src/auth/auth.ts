/**
 * The whole of auth as etcdserver sees it: who calls, what passwords and tokens say, and, through {@link AuthStore},
 * what is allowed. This part waits (for passwords, for signatures, for the log); the store never does.
 */
import {
  type AuthenticateRequest,
  type AuthUserAddRequest,
  type AuthUserChangePasswordRequest,
  EtcdError,
} from "@etcd-ts/client/wire";
import { utf8Text } from "../lib/bytes.ts";
import type { Clock } from "../lib/clock.ts";
import type { Logger } from "../lib/log.ts";
import type { Random } from "../lib/random.ts";
import type { Backend } from "../storage/index.ts";
import { AuthStore, innerText } from "./auth-store.ts";
import { BCRYPT_COST_DEFAULT, BCRYPT_COST_MAX, BCRYPT_COST_MIN } from "./limits.ts";
import { openPasswords, type Passwords } from "./passwords.ts";
import type { WaitForIndex } from "./simple-tokens.ts";
import { fingerprint, openTokenProvider, type TokenProvider } from "./tokens.ts";
import type { Caller, Credentials, LeaseKeys } from "./types.ts";

export interface AuthOptions {
  readonly backend: Backend;
  readonly leases: LeaseKeys;
  /** `--auth-token`. */
  readonly tokenSpec: string;
  /** `--auth-token-ttl`; of simple tokens. */
  readonly tokenTtlSeconds: number;
  /** `--bcrypt-cost`. */
  readonly bcryptCost: number;
  /** `--client-cert-auth`: who brings no token is named by its certificate. */
  readonly usesCertificates: boolean;
  readonly waitForIndex: WaitForIndex;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  /** Default: passwords are hashed in threads. */
  readonly passwordThreads?: "worker" | "inline" | undefined;
}

/** A login that is ready for the log. */
export interface Login {
  /** What the password was checked against; when it has moved on after apply, the login is tried again. */
  readonly checkedRevision: number;
  readonly request: { readonly name: string; readonly password: ""; readonly simpleToken: string };
}

export class Auth {
  readonly store: AuthStore;
  readonly #tokens: TokenProvider;
  readonly #passwords: Passwords;
  readonly #usesCertificates: boolean;
  readonly #logger: Logger;

  private constructor(options: AuthOptions, parts: { store: AuthStore; tokens: TokenProvider; passwords: Passwords }) {
    this.store = parts.store;
    this.#tokens = parts.tokens;
    this.#passwords = parts.passwords;
    this.#usesCertificates = options.usesCertificates;
    this.#logger = options.logger;
  }

  /** Rejects with etcd's text when the token options are not valid. Who opens it stops it. */
  static async open(options: AuthOptions): Promise<Auth> {
    const { backend, leases, clock, random, logger } = options;
    let tokens: TokenProvider;
    try {
      tokens = await openTokenProvider({
        spec: options.tokenSpec,
        simpleTtlSeconds: options.tokenTtlSeconds,
        waitForIndex: options.waitForIndex,
        clock,
        random,
        logger,
      });
    } catch (error) {
      logger.warn("failed to create token provider", { error });
      throw error;
    }
    const bcryptCost = checkedCost(options.bcryptCost, logger);
    const store = new AuthStore({ backend, leases, tokens, bcryptCost, logger });
    const passwords = openPasswords({ cost: bcryptCost, random, threads: options.passwordThreads ?? "worker" });
    return new Auth(options, { store, tokens, passwords });
  }

  async stop(): Promise<void> {
    this.#tokens.stop();
    await this.#passwords.stop();
  }

  /**
   * Who calls; undefined when nobody is named, or auth is off. Throws InvalidAuthToken for a token that names nobody. Does
   * not wait for a token that this member knows.
   */
  callerOf(credentials: Credentials): Caller | undefined | Promise<Caller | undefined> {
    const { store } = this;
    if (!store.isEnabled) return undefined;
    if (credentials.asRoot) return this.root();
    const { token } = credentials;
    if (token !== undefined) {
      const found = this.#tokens.callerOf(token, store.revision, credentials.signal);
      return found instanceof Promise
        ? found.then((caller) => this.#validOf(caller, token))
        : this.#validOf(found, token);
    }
    const { certCommonName } = this.#usesCertificates ? credentials : {};
    if (certCommonName === undefined) return undefined;
    if (credentials.isFromGateway) {
      this.#logger.warn("ignoring common name in gRPC-gateway proxy request", {
        "common-name": certCommonName,
        "user-name": certCommonName,
        revision: store.revision,
      });
      return undefined;
    }
    return { username: certCommonName, authRevision: store.revision };
  }

  #validOf(caller: Caller | undefined, token: string): Caller {
    if (caller) return caller;
    this.#logger.warn("invalid auth token", { "token-fingerprint": fingerprint(token) });
    throw new EtcdError("InvalidAuthToken");
  }

  /** The member itself, for what it proposes on its own. */
  root(): Caller | undefined {
    return this.store.isEnabled ? { username: "root", authRevision: this.store.revision } : undefined;
  }

  /** Checks the password, which may take long. What goes into the log does not hold it. */
  async login({ name, password }: AuthenticateRequest): Promise<Login> {
    const { store } = this;
    if (!store.isEnabled) throw new EtcdError("AuthNotEnabled");
    const checkedRevision = store.revision;
    const user = store.user(name);
    try {
      if (!user) throw new EtcdError("AuthFailed");
      if (user.options?.noPassword) throw new EtcdError("NoPasswordUser");
      if (!(await this.#passwords.compare(password, utf8Text(user.password)))) {
        this.#logger.info("invalid password", { "user-name": name });
        throw new EtcdError("AuthFailed");
      }
    } catch (error) {
      if (error instanceof EtcdError) {
        this.#logger.warn("invalid authentication was requested", { user: name, error: innerText(error) });
      }
      throw error;
    }
    return { checkedRevision, request: { name, password: "", simpleToken: this.#tokens.newPrefix() } };
  }

  /** After the login was applied: the token, or undefined when users changed meanwhile and it must be tried again. */
  async finishLogin({ checkedRevision, request }: Login, assigned: string): Promise<string | undefined> {
    if (checkedRevision !== this.store.revision) {
      this.#logger.info("revision when password checked became stale; retrying");
      return undefined;
    }
    return this.#tokens.issue({ username: request.name, authRevision: checkedRevision }, assigned);
  }

  /** The request as it goes into the log: with the password's hash in the place of the password. */
  async hashNewUser(request: AuthUserAddRequest): Promise<AuthUserAddRequest> {
    if (request.options?.noPassword) return request;
    return { ...request, password: "", hashedPassword: await this.#hash(request.password) };
  }

  /** As {@link hashNewUser}. Without a password it is taken as it is, which leaves the user with none that fits. */
  async hashNewPassword(request: AuthUserChangePasswordRequest): Promise<AuthUserChangePasswordRequest> {
    if (request.password === "") return request;
    return { ...request, password: "", hashedPassword: await this.#hash(request.password) };
  }

  async #hash(password: string): Promise<string> {
    return Buffer.from(await this.#passwords.hash(password), "utf8").toString("base64");
  }
}

function checkedCost(cost: number, logger: Logger): number {
  if (cost >= BCRYPT_COST_MIN && cost <= BCRYPT_COST_MAX) return cost;
  logger.warn("use default bcrypt cost instead of the invalid given cost", {
    "min-cost": BCRYPT_COST_MIN,
    "max-cost": BCRYPT_COST_MAX,
    "default-cost": BCRYPT_COST_DEFAULT,
    "given-cost": cost,
  });
  return BCRYPT_COST_DEFAULT;
}
