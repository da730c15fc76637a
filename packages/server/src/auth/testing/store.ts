/** An auth store on a backend of its own, for tests: what the log would bring is applied at once. */
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { EtcdError, type Init, type Permission } from "@etcd-ts/client/wire";
import { utf8Text } from "../../lib/bytes.ts";
import { systemClock } from "../../lib/clock.ts";
import { type Logger, silentLogger } from "../../lib/log.ts";
import { InternalRaftRequest } from "../../pb/etcdserverpb.ts";
import { type Backend, openBackend, type Table } from "../../storage/index.ts";
import { AuthStore } from "../auth-store.ts";
import type { TokenStore } from "../tokens.ts";
import type { LeaseKeys } from "../types.ts";

export const noTokenStore: TokenStore = {
  assign: ({ prefix, index }) => `${prefix}.${index}`,
  enable() {},
  disable() {},
  forget() {},
};

/** `"ok"`, or the kind of error. */
export function outcomeOf(check: () => unknown): string {
  try {
    check();
    return "ok";
  } catch (error) {
    if (error instanceof EtcdError) return error.kind;
    throw error;
  }
}

export class StoreHarness implements AsyncDisposable {
  readonly folder: string;
  readonly #tokens: TokenStore;
  readonly #leases: LeaseKeys;
  readonly #logger: Logger;
  #backend: Backend;
  #store: AuthStore;
  #index = 0;

  private constructor(
    folder: string,
    backend: Backend,
    options: { tokens?: TokenStore; leases?: LeaseKeys; logger?: Logger },
  ) {
    this.folder = folder;
    this.#backend = backend;
    this.#tokens = options.tokens ?? noTokenStore;
    this.#leases = options.leases ?? { keysOfLease: () => [] };
    this.#logger = options.logger ?? silentLogger;
    this.#store = this.#open();
  }

  static async open(options: { tokens?: TokenStore; leases?: LeaseKeys; logger?: Logger } = {}): Promise<StoreHarness> {
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), "auth-test-"));
    return new StoreHarness(folder, await openTestBackend(folder), options);
  }

  #open(): AuthStore {
    return new AuthStore({
      backend: this.#backend,
      leases: this.#leases,
      tokens: this.#tokens,
      bcryptCost: 4,
      logger: this.#logger,
    });
  }

  get store(): AuthStore {
    return this.#store;
  }

  get backend(): Backend {
    return this.#backend;
  }

  /** Applies one entry: its response without header, or the kind of its error. */
  apply(init: Init<InternalRaftRequest>): unknown {
    const request = InternalRaftRequest.create(init);
    return this.#backend.write((tx) => {
      // Here, as applying does it: what leaves a write is fatal to the backend.
      try {
        return this.#store.apply(tx, request, ++this.#index);
      } catch (error) {
        if (error instanceof EtcdError) return error.kind;
        throw error;
      }
    });
  }

  /** `READ k..l` for each permission of a role. */
  permissionsOf(role: string): string[] {
    const { perm } = this.apply({ authRoleGet: { role } }) as { perm: Permission[] };
    return perm.map(
      ({ permType, key, rangeEnd }) =>
        `${["READ", "WRITE", "READWRITE"][permType]} ${utf8Text(key)}${rangeEnd.length > 0 ? `..${utf8Text(rangeEnd)}` : ""}`,
    );
  }

  async restart(): Promise<void> {
    await this.#backend.close();
    this.#backend = await openTestBackend(this.folder);
    this.#store = this.#open();
  }

  /** All rows of a table, in hex. */
  rows(table: Table): string[] {
    const rows: string[] = [];
    this.#backend.scan(table, {}, (key, value) => {
      rows.push(`${Buffer.from(key).toString("latin1")} ${Buffer.from(value).toString("hex")}`);
    });
    return rows;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#backend.close();
    fs.rmSync(this.folder, { recursive: true, force: true });
  }
}

function openTestBackend(folder: string): Promise<Backend> {
  return openBackend({
    path: path.join(folder, "db.lmdb"),
    clock: systemClock,
    logger: silentLogger,
    onFatal: (error) => {
      throw error;
    },
    commits: "inline",
  });
}
