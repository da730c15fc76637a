/**
 * A million and more decisions, each also made by a model that knows users as lists of grants and ranges as lists of
 * pieces of the key space. Between batches of decisions, users, roles and permissions change through the log.
 */
import { EtcdError, type Permission, PermissionType, PutRequest, type TxnRequest } from "@etcd-ts/client/wire";
import { describe, expect, it } from "vitest";
import { EMPTY_BYTES, utf8Bytes } from "../lib/bytes.ts";
import { SeededRandom } from "../lib/random.ts";
import { InternalRaftRequest, type RequestHeader } from "../pb/etcdserverpb.ts";
import { Atoms, type Range } from "./testing/atoms.ts";
import { StoreHarness } from "./testing/store.ts";
import type { Caller } from "./types.ts";

const DECISIONS = 1_050_000;
const PER_ROUND = 3000;
const SEED = Number(process.env["AUTH_SEED"] ?? 20_261_123);

const USERS = ["root", "ann", "bob", "cy", "dee", "eve"];
const ROLES = ["root", "r1", "r2", "r3", "r4", "r5"];
const KEYS = ["\0", "a", "a\0", "ab", "b", "ba", "c", "d", "dd", "e", "f", "\x7f"].map(utf8Bytes);
const ENDS = [EMPTY_BYTES, EMPTY_BYTES, Uint8Array.of(0), ...KEYS, Uint8Array.of(0xff)];
const LEASES = [0n, 1n, 2n, 3n, 4n];
const atoms = new Atoms([...KEYS, Uint8Array.of(0xff)]);

type Access = "read" | "write";

/** What the log said so far. */
class Model {
  revision = 1;
  readonly users = new Map<string, Set<string>>();
  readonly roles = new Map<string, Permission[]>();
  readonly leases = new Map<bigint, Uint8Array[]>();
  /** Worked out anew after each change: user -> access -> a flag for each piece of the key space. */
  readonly #allowed = new Map<string, Record<Access, boolean[]>>();

  workOut(): void {
    this.#allowed.clear();
    for (const [name, roles] of this.users) {
      const granted = [...roles].flatMap((role) => this.roles.get(role) ?? []);
      const piecesOf = (types: number[]) => {
        const lists = granted.filter(({ permType }) => types.includes(permType)).map((range) => atoms.inRange(range));
        return atoms.starts.map((_, i) => lists.some((list) => list[i]));
      };
      this.#allowed.set(name, {
        read: piecesOf([PermissionType.Read, PermissionType.ReadWrite]),
        write: piecesOf([PermissionType.Write, PermissionType.ReadWrite]),
      });
    }
  }

  isRoot(caller: Caller | undefined): boolean {
    return caller !== undefined && this.users.get(caller.username)?.has("root") === true;
  }

  keys(caller: Caller | undefined, access: Access, range: Range): string {
    if (!caller || caller.authRevision === 0) return "UserEmpty";
    if (caller.authRevision < this.revision) return "AuthOldRevision";
    const allowed = this.#allowed.get(caller.username);
    if (!allowed) return "PermissionDenied";
    if (this.isRoot(caller)) return "ok";
    return atoms.asked(range).every((i) => allowed[access][i]) ? "ok" : "PermissionDenied";
  }

  admin(caller: Caller | undefined): string {
    if (!caller || caller.username === "") return "UserEmpty";
    if (!this.users.has(caller.username)) return "UserNotFound";
    return this.isRoot(caller) ? "ok" : "PermissionDenied";
  }

  leaseKeys(caller: Caller | undefined, access: Access, id: bigint): string {
    if (this.admin(caller) === "ok") return "ok";
    return first((this.leases.get(id) ?? []).map((key) => () => this.keys(caller, access, one(key))));
  }

  put(caller: Caller | undefined, { key, lease, prevKv }: PutRequest): string {
    return first([
      () => this.keys(caller, "write", one(key)),
      () => (lease === 0n ? "ok" : this.leaseKeys(caller, "write", lease)),
      () => (prevKv ? this.keys(caller, "read", one(key)) : "ok"),
    ]);
  }

  deleteRange(caller: Caller | undefined, request: Range & { readonly prevKv: boolean }): string {
    return first([
      () => this.keys(caller, "write", request),
      () => (request.prevKv ? this.keys(caller, "read", request) : "ok"),
    ]);
  }

  txn(caller: Caller | undefined, txn: TxnRequest): string {
    return first([
      ...txn.compare.map((compare) => () => this.keys(caller, "read", compare)),
      ...[...txn.success, ...txn.failure].map(({ request }) => () => {
        switch (request?.kind) {
          case "requestRange":
            return this.keys(caller, "read", request.value);
          case "requestPut":
            return this.put(caller, request.value);
          case "requestDeleteRange":
            return this.deleteRange(caller, request.value);
          case "requestTxn":
            return this.txn(caller, request.value);
          default:
            return "ok";
        }
      }),
    ]);
  }
}

const one = (key: Uint8Array): Range => ({ key, rangeEnd: EMPTY_BYTES });

/** The first refusal. */
function first(checks: readonly (() => string)[]): string {
  for (const check of checks) {
    const outcome = check();
    if (outcome !== "ok") return outcome;
  }
  return "ok";
}

const EMPTY = InternalRaftRequest.create();

describe("permissions", () => {
  it(`${DECISIONS} random decisions are those of a plain model (seed ${SEED})`, async () => {
    const random = new SeededRandom(SEED);
    const pick = <T>(list: readonly T[]): T => list[random.below(list.length)] as T;
    const chance = (oneIn: number) => random.below(oneIn) === 0;
    const model = new Model();
    await using harness = await StoreHarness.open({ leases: { keysOfLease: (id) => model.leases.get(id) ?? [] } });
    const { store } = harness;
    const range = (): Range => ({ key: pick(KEYS), rangeEnd: pick(ENDS) });

    /** Applies to both; they must agree on whether it is possible. */
    const change = (entry: Parameters<StoreHarness["apply"]>[0], isPossible: boolean, effect: () => void) => {
      const outcome = harness.apply(entry);
      expect(typeof outcome === "object", `${String(outcome)} of ${JSON.stringify(Object.keys(entry))}`).toBe(
        isPossible,
      );
      if (!isPossible) return;
      effect();
      model.revision++;
    };
    const randomChange = () => {
      const name = pick(USERS);
      const role = pick(ROLES);
      const roles = model.users.get(name);
      const permissions = model.roles.get(role);
      switch (random.below(9)) {
        case 0:
          change({ authUserAdd: { name, options: { noPassword: true } } }, !roles, () =>
            model.users.set(name, new Set()),
          );
          break;
        case 1:
          if (chance(3)) {
            change({ authUserDelete: { name } }, roles !== undefined && name !== "root", () =>
              model.users.delete(name),
            );
          }
          break;
        case 2:
          if (roles?.has(role)) break;
          change(
            { authUserGrantRole: { user: name, role } },
            roles !== undefined && (role === "root" || permissions !== undefined),
            () => roles?.add(role),
          );
          break;
        case 3:
          if (chance(2)) {
            const isKept = name === "root" && role === "root";
            change({ authUserRevokeRole: { name, role } }, roles?.has(role) === true && !isKept, () =>
              roles?.delete(role),
            );
          }
          break;
        case 4:
          change({ authRoleAdd: { name: role } }, !permissions, () => model.roles.set(role, []));
          break;
        case 5:
          if (chance(4)) {
            change({ authRoleDelete: { role } }, permissions !== undefined && role !== "root", () => {
              model.roles.delete(role);
              for (const each of model.users.values()) each.delete(role);
            });
          }
          break;
        case 6: {
          const perm = permissions && permissions.length > 0 ? pick(permissions) : { ...range(), permType: 0 };
          const { key, rangeEnd } = perm;
          change({ authRoleRevokePermission: { role, key, rangeEnd } }, permissions?.includes(perm) === true, () =>
            permissions?.splice(permissions.indexOf(perm), 1),
          );
          break;
        }
        default: {
          const { key, rangeEnd } = range();
          const isRange =
            rangeEnd.length === 0 || (rangeEnd.length === 1 && rangeEnd[0] === 0) || Buffer.compare(key, rangeEnd) < 0;
          // Two permissions of one role that begin at one key are told apart in their own test.
          const same = permissions?.find((perm) => Buffer.compare(perm.key, key) === 0);
          if (same && Buffer.compare(same.rangeEnd, rangeEnd) !== 0) break;
          const perm = { key, rangeEnd, permType: pick([0, 1, 2] as const) };
          change({ authRoleGrantPermission: { name: role, perm } }, permissions !== undefined && isRange, () => {
            if (same) permissions?.splice(permissions.indexOf(same), 1);
            permissions?.push(perm);
          });
        }
      }
    };

    harness.apply({ authUserAdd: { name: "root", options: { noPassword: true } } });
    harness.apply({ authUserGrantRole: { user: "root", role: "root" } });
    harness.apply({ authEnable: {} });
    model.users.set("root", new Set(["root"]));
    model.revision = 3;

    const put = () => PutRequest.create({ key: pick(KEYS), lease: pick(LEASES), prevKv: chance(2) });
    const deletion = () => ({ ...range(), prevKv: chance(2) });
    const rangeRequest = () => ({ ...EMPTY_RANGE, ...range() });
    const operation = (depth: number): TxnRequest["success"][number] => {
      switch (random.below(depth > 2 ? 3 : 4)) {
        case 0:
          return { request: { kind: "requestRange", value: rangeRequest() } };
        case 1:
          return { request: { kind: "requestPut", value: put() } };
        case 2:
          return { request: { kind: "requestDeleteRange", value: deletion() } };
        default:
          return { request: { kind: "requestTxn", value: txn(depth + 1) } };
      }
    };
    const list = <T>(make: () => T): T[] => Array.from({ length: random.below(3) }, make);
    const txn = (depth: number): TxnRequest => ({
      compare: list(() => ({ ...EMPTY_COMPARE, ...range() })),
      success: list(() => operation(depth)),
      failure: list(() => operation(depth)),
    });

    const caller = (): Caller | undefined => {
      const authRevision = chance(40) ? model.revision - 1 : model.revision;
      switch (random.below(20)) {
        case 0:
          return undefined;
        case 1:
          return { username: "nobody", authRevision };
        case 2:
          return { username: "", authRevision };
        default:
          return { username: pick(USERS), authRevision };
      }
    };
    const adminRequests: (() => Partial<InternalRaftRequest>)[] = [
      () => ({ authEnable: {} }),
      () => ({ authDisable: {} }),
      () => ({ authStatus: {} }),
      () => ({ authUserList: {} }),
      () => ({ authRoleList: {} }),
      () => ({ authUserAdd: { name: "x", password: "", options: undefined, hashedPassword: "" } }),
      () => ({ authUserDelete: { name: pick(USERS) } }),
      () => ({ authUserChangePassword: { name: pick(USERS), password: "", hashedPassword: "" } }),
      () => ({ authUserGrantRole: { user: pick(USERS), role: pick(ROLES) } }),
      () => ({ authUserRevokeRole: { name: pick(USERS), role: pick(ROLES) } }),
      () => ({ authRoleAdd: { name: "x" } }),
      () => ({ authRoleDelete: { role: pick(ROLES) } }),
      () => ({ authRoleGrantPermission: { name: pick(ROLES), perm: undefined } }),
      () => ({ authRoleRevokePermission: { role: pick(ROLES), ...range() } }),
    ];

    /** One decision: how the model makes it, and how the store does. */
    const decide = (who: Caller | undefined): readonly [expected: string, check: () => void] => {
      const header: RequestHeader = {
        id: 0n,
        username: who?.username ?? "",
        authRevision: who?.authRevision ?? 0,
      };
      const named: Caller = header;
      const applied = (body: Partial<InternalRaftRequest>) => () =>
        store.checkApply({ ...EMPTY, ...body }, who ? header : undefined);
      switch (random.below(16)) {
        case 0:
        case 1: {
          const asked = rangeRequest();
          return [model.keys(who, "read", asked), () => store.checkRange(who, asked.key, asked.rangeEnd)];
        }
        case 2: {
          const asked = rangeRequest();
          return [model.keys(who, "read", asked), applied({ range: asked })];
        }
        case 3:
        case 4:
        case 5: {
          const asked = put();
          return [model.put(who, asked), applied({ put: asked })];
        }
        case 6:
        case 7: {
          const asked = deletion();
          return [model.deleteRange(who, asked), applied({ deleteRange: asked })];
        }
        case 8:
        case 9: {
          const asked = txn(0);
          return [model.txn(who, asked), applied({ txn: asked })];
        }
        case 10: {
          const id = pick(LEASES);
          return [model.leaseKeys(who, "write", id), applied({ leaseRevoke: { id } })];
        }
        case 11: {
          const ids = list(() => pick(LEASES));
          const expected = first(ids.map((id) => () => model.leaseKeys(who, "read", id)));
          return [expected, () => store.checkLeaseRead(who, ids)];
        }
        case 12:
          return [who ? "ok" : "UserEmpty", () => store.checkNamed(who)];
        case 13: {
          const name = pick(USERS);
          const asAdmin = model.admin(named);
          const expected = asAdmin === "ok" || name === named.username ? "ok" : asAdmin;
          return [expected, applied({ authUserGet: { name } })];
        }
        case 14: {
          const role = pick(ROLES);
          const asAdmin = model.admin(named);
          const isHeld = model.users.get(named.username)?.has(role) === true;
          return [asAdmin === "ok" || isHeld ? "ok" : asAdmin, applied({ authRoleGet: { role } })];
        }
        default:
          return chance(2)
            ? [model.admin(who), () => store.checkAdmin(who)]
            : [model.admin(who), applied(pick(adminRequests)())];
      }
    };

    const seen = new Map<string, number>();
    for (let made = 0; made < DECISIONS; ) {
      for (let i = 0; i < 40; i++) randomChange();
      for (const id of LEASES.slice(1))
        model.leases.set(
          id,
          list(() => pick(KEYS)),
        );
      model.workOut();
      expect(store.revision).toBe(model.revision);
      for (let i = 0; i < PER_ROUND; i++, made++) {
        const who = caller();
        const [expected, check] = decide(who);
        const outcome = outcomeOf(check);
        if (outcome !== expected) expect.fail(`decision ${made}: ${outcome}, but the model says ${expected}`);
        seen.set(outcome, (seen.get(outcome) ?? 0) + 1);
      }
    }
    // Both answers were given often enough to mean something.
    for (const kind of ["ok", "PermissionDenied", "UserEmpty", "AuthOldRevision", "UserNotFound"]) {
      expect(seen.get(kind) ?? 0, kind).toBeGreaterThan(5000);
    }
  }, 300_000);
});

const EMPTY_RANGE = {
  limit: 0,
  revision: 0,
  sortOrder: 0,
  sortTarget: 0,
  serializable: false,
  keysOnly: false,
  countOnly: false,
  minModRevision: 0,
  maxModRevision: 0,
  minCreateRevision: 0,
  maxCreateRevision: 0,
} as const;
const EMPTY_COMPARE = { result: 0, target: 0, targetUnion: undefined } as const;

/** Capturing a stack for each of so many refusals would take most of the time. */
function outcomeOf(check: () => void): string {
  const { stackTraceLimit } = Error;
  Error.stackTraceLimit = 0;
  try {
    check();
    return "ok";
  } catch (error) {
    if (error instanceof EtcdError) return error.kind;
    throw error;
  } finally {
    Error.stackTraceLimit = stackTraceLimit;
  }
}
