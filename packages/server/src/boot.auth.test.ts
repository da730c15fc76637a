/** A whole member with auth on, without ports: who may call what, and what survives a restart. */
import { generateKeyPairSync } from "node:crypto";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import {
  AlarmAction,
  AlarmType,
  CompactionRequest,
  DowngradeAction,
  EtcdError,
  HashKVRequest,
  LeaseGrantRequest,
  LeaseTimeToLiveRequest,
  MemberListRequest,
  PermissionType,
  PutRequest,
  RangeRequest,
  TxnRequest,
} from "@etcd-ts/client/wire";
import { afterEach, describe, expect, it } from "vitest";
import { type RunningMember, startMember } from "./boot.ts";
import { defaultServerConfig, type RequestContext, type Server, type ServerConfig } from "./etcdserver/index.ts";
import { EMPTY_BYTES, utf8Bytes } from "./lib/bytes.ts";
import { systemClock } from "./lib/clock.ts";
import { silentLogger } from "./lib/log.ts";
import { systemRandom } from "./lib/random.ts";

const cleanUps: (() => Promise<void> | void)[] = [];
afterEach(async () => {
  for (const cleanUp of cleanUps.splice(0).reverse()) await cleanUp();
});

function temporaryDir(): string {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), "boot-auth-test-"));
  cleanUps.push(() => fs.rmSync(dir, { recursive: true, force: true }));
  return dir;
}

async function start(dataDir: string, changes: Partial<ServerConfig> = {}): Promise<RunningMember> {
  const member = await startMember(
    { ...defaultServerConfig(dataDir), bcryptCost: 4, ...changes },
    {
      clock: systemClock,
      random: systemRandom,
      logger: silentLogger,
      onFatal: (error) => {
        throw error;
      },
      backendCommits: "inline",
    },
  );
  cleanUps.push(() => member.stop());
  await member.server.ready;
  return member;
}

const bytes = utf8Bytes;
const openEnd = Uint8Array.of(0);
const outcome = (promise: unknown): Promise<string> =>
  Promise.resolve(promise).then(
    () => "ok",
    (error: unknown) => (error instanceof EtcdError ? error.kind : Promise.reject(error)),
  );
const thrown = (check: () => unknown): Promise<string> => outcome((async () => check())());
const put = (key: string, init: Partial<PutRequest> = {}) =>
  PutRequest.create({ key: bytes(key), value: bytes("v"), ...init });
const range = (key: string, rangeEnd: Uint8Array = EMPTY_BYTES, init: Partial<RangeRequest> = {}) =>
  RangeRequest.create({ key: bytes(key), rangeEnd, ...init });

/** Users root and ann; ann may read and write [a, c) and read d. Auth is on. */
async function withUsers(server: Server): Promise<void> {
  await server.userAdd({ name: "root", password: "rootpw", options: undefined, hashedPassword: "" }, {});
  await server.userGrantRole({ user: "root", role: "root" }, {});
  await server.userAdd({ name: "ann", password: "annpw", options: undefined, hashedPassword: "" }, {});
  await server.roleAdd({ name: "r" }, {});
  const grant = (permType: PermissionType, key: string, rangeEnd: string) =>
    server.roleGrantPermission({ name: "r", perm: { permType, key: bytes(key), rangeEnd: bytes(rangeEnd) } }, {});
  await grant(PermissionType.ReadWrite, "a", "c");
  await grant(PermissionType.Read, "d", "");
  await grant(PermissionType.Write, "w", "");
  await server.userGrantRole({ user: "ann", role: "r" }, {});
  for (const key of ["a", "b", "d", "s", "w"]) await server.put(put(key), {});
  await server.authEnable({}, {});
}

async function login(server: Server, name: string): Promise<RequestContext> {
  const { token } = await server.authenticate({ name, password: `${name}pw` }, {});
  return { token };
}

describe("every call", () => {
  it("is refused or not by who asks", async () => {
    const { server } = await start(temporaryDir());
    await withUsers(server);
    const root = await login(server, "root");
    const ann = await login(server, "ann");
    const { id: lease } = await server.leaseGrant(LeaseGrantRequest.create({ ttl: 1000 }), root);
    const { id: annLease } = await server.leaseGrant(LeaseGrantRequest.create({ ttl: 1000 }), ann);
    await server.put(put("s", { lease }), root);
    await server.put(put("a", { lease: annLease }), ann);

    const nobody = "UserEmpty";
    const admins = [nobody, "PermissionDenied", "ok"];
    const users = [nobody, "ok", "ok"];
    const blunt = ["AuthInnerUserEmpty", "AuthInnerPermissionDenied", "ok"];
    const nested = (request: TxnRequest["success"][number]["request"]) => {
      const inner = TxnRequest.create({ failure: [{ request }] });
      return TxnRequest.create({ success: [{ request: { kind: "requestTxn", value: inner } }] });
    };
    const perm = { permType: PermissionType.Read, key: bytes("x"), rangeEnd: EMPTY_BYTES };
    /** Outcomes for nobody, for ann and for root. */
    const calls: Record<string, [(ctx: RequestContext) => unknown, string[]]> = {
      "range, allowed": [(ctx) => server.range(range("a", bytes("c")), ctx), users],
      "range, serializable": [(ctx) => server.range(range("a", EMPTY_BYTES, { serializable: true }), ctx), users],
      "range, too wide": [(ctx) => server.range(range("a", bytes("d")), ctx), admins],
      "range, encoded": [(ctx) => server.rangeEncoded(range("s"), ctx), admins],
      "put, allowed": [(ctx) => server.put(put("b"), ctx), users],
      "put, other": [(ctx) => server.put(put("d"), ctx), admins],
      "put, not read": [(ctx) => server.put(put("w"), ctx), users],
      "put, prev_kv not read": [(ctx) => server.put(put("w", { prevKv: true }), ctx), admins],
      "put, on a foreign lease": [(ctx) => server.put(put("a", { lease }), ctx), admins],
      "deleteRange, other": [
        (ctx) => server.deleteRange({ key: bytes("d"), rangeEnd: EMPTY_BYTES, prevKv: false }, ctx),
        admins,
      ],
      "deleteRange, prev_kv not read": [
        (ctx) => server.deleteRange({ key: bytes("w"), rangeEnd: EMPTY_BYTES, prevKv: true }, ctx),
        admins,
      ],
      "txn, read only": [
        (ctx) =>
          server.txn(TxnRequest.create({ success: [{ request: { kind: "requestRange", value: range("s") } }] }), ctx),
        admins,
      ],
      "txn, a read nested": [(ctx) => server.txn(nested({ kind: "requestRange", value: range("s") }), ctx), admins],
      "txn, a write nested": [(ctx) => server.txn(nested({ kind: "requestPut", value: put("s") }), ctx), admins],
      "txn, a put with prev_kv": [
        (ctx) => server.txn(nested({ kind: "requestPut", value: put("w", { prevKv: true }) }), ctx),
        admins,
      ],
      "txn, a put on a foreign lease": [
        (ctx) => server.txn(nested({ kind: "requestPut", value: put("a", { lease }) }), ctx),
        admins,
      ],
      "txn, allowed": [(ctx) => server.txn(nested({ kind: "requestPut", value: put("a") }), ctx), users],
      compact: [
        (ctx) => server.compact(CompactionRequest.create({ revision: 1 }), ctx),
        [nobody, "PermissionDenied", "Compacted"],
      ],
      "watch, allowed": [(ctx) => server.checkWatchPermission(bytes("d"), EMPTY_BYTES, ctx), users],
      "watch, to the end": [(ctx) => server.checkWatchPermission(bytes("d"), openEnd, ctx), admins],
      leaseGrant: [(ctx) => server.leaseGrant(LeaseGrantRequest.create({ ttl: 1000 }), ctx), users],
      "leaseKeepAlive, own": [(ctx) => server.leaseKeepAlive(annLease, ctx), users],
      "leaseKeepAlive, foreign": [(ctx) => server.leaseKeepAlive(lease, ctx), admins],
      leaseTimeToLive: [(ctx) => server.leaseTimeToLive(LeaseTimeToLiveRequest.create({ id: lease }), ctx), users],
      "leaseTimeToLive, keys": [
        (ctx) => server.leaseTimeToLive(LeaseTimeToLiveRequest.create({ id: lease, keys: true }), ctx),
        admins,
      ],
      "leaseTimeToLive, own keys": [
        (ctx) => server.leaseTimeToLive(LeaseTimeToLiveRequest.create({ id: annLease, keys: true }), ctx),
        users,
      ],
      leaseLeases: [(ctx) => server.leaseLeases(ctx), admins],
      memberList: [(ctx) => server.memberList(MemberListRequest.create(), ctx), users],
      memberAdd: [
        (ctx) => server.memberAdd({ peerUrls: ["http://localhost:2380"], isLearner: true }, ctx),
        [nobody, "PermissionDenied", "PeerURLExist"],
      ],
      memberRemove: [(ctx) => server.memberRemove({ id: 1n }, ctx), [nobody, "PermissionDenied", "MemberNotFound"]],
      memberUpdate: [
        (ctx) => server.memberUpdate({ id: 1n, peerUrls: ["http://localhost:1"] }, ctx),
        [nobody, "PermissionDenied", "MemberNotFound"],
      ],
      memberPromote: [(ctx) => server.memberPromote({ id: 1n }, ctx), [nobody, "PermissionDenied", "MemberNotFound"]],
      "alarm, get": [
        (ctx) => server.alarm({ action: AlarmAction.Get, memberId: 0n, alarm: AlarmType.None }, ctx),
        users,
      ],
      "alarm, disarm": [
        (ctx) => server.alarm({ action: AlarmAction.Deactivate, memberId: 1n, alarm: AlarmType.NoSpace }, ctx),
        admins,
      ],
      status: [(ctx) => server.status(ctx), admins],
      moveLeader: [
        (ctx) => server.moveLeader({ targetId: 1n }, ctx),
        [nobody, "PermissionDenied", "BadLeaderTransferee"],
      ],
      downgrade: [
        (ctx) => server.downgrade({ action: DowngradeAction.Validate, version: "x" }, ctx),
        [nobody, "PermissionDenied", "WrongDowngradeVersionFormat"],
      ],
      defragment: [(ctx) => server.defragment(ctx), blunt],
      hash: [(ctx) => server.hash(ctx), blunt],
      hashKv: [(ctx) => server.hashKv(HashKVRequest.create(), ctx), blunt],
      snapshot: [(ctx) => server.snapshot(ctx).then((snapshot) => snapshot.close()), blunt],
      authStatus: [(ctx) => server.authStatus({}, ctx), admins],
      authEnable: [(ctx) => server.authEnable({}, ctx), admins],
      userAdd: [
        (ctx) => server.userAdd({ name: "ann", password: "", options: undefined, hashedPassword: "" }, ctx),
        [nobody, "PermissionDenied", "UserAlreadyExist"],
      ],
      "userGet, oneself": [(ctx) => server.userGet({ name: "ann" }, ctx), users],
      "userGet, another": [(ctx) => server.userGet({ name: "root" }, ctx), admins],
      userList: [(ctx) => server.userList({}, ctx), admins],
      userDelete: [(ctx) => server.userDelete({ name: "x" }, ctx), [nobody, "PermissionDenied", "UserNotFound"]],
      "userChangePassword, one's own": [
        (ctx) => server.userChangePassword({ name: "x", password: "p", hashedPassword: "" }, ctx),
        [nobody, "PermissionDenied", "UserNotFound"],
      ],
      userGrantRole: [(ctx) => server.userGrantRole({ user: "ann", role: "r" }, ctx), admins],
      userRevokeRole: [
        (ctx) => server.userRevokeRole({ name: "ann", role: "x" }, ctx),
        [nobody, "PermissionDenied", "RoleNotGranted"],
      ],
      roleAdd: [(ctx) => server.roleAdd({ name: "r" }, ctx), [nobody, "PermissionDenied", "RoleAlreadyExist"]],
      "roleGet, held": [(ctx) => server.roleGet({ role: "r" }, ctx), users],
      "roleGet, not held": [(ctx) => server.roleGet({ role: "x" }, ctx), [nobody, "PermissionDenied", "RoleNotFound"]],
      roleList: [(ctx) => server.roleList({}, ctx), admins],
      roleDelete: [(ctx) => server.roleDelete({ role: "x" }, ctx), [nobody, "PermissionDenied", "RoleNotFound"]],
      roleGrantPermission: [
        (ctx) => server.roleGrantPermission({ name: "x", perm }, ctx),
        [nobody, "PermissionDenied", "RoleNotFound"],
      ],
      roleRevokePermission: [
        (ctx) => server.roleRevokePermission({ role: "x", key: bytes("x"), rangeEnd: EMPTY_BYTES }, ctx),
        [nobody, "PermissionDenied", "RoleNotFound"],
      ],
      "leaseRevoke, foreign": [(ctx) => server.leaseRevoke({ id: lease }, ctx), admins],
      authDisable: [(ctx) => server.authDisable({}, ctx), admins],
    };
    // The compaction above is of a revision that root's own try refuses.
    await server.compact(CompactionRequest.create({ revision: 2 }), root);
    for (const [name, [call, expected]] of Object.entries(calls)) {
      const forged = await thrown(() => call({ token: "abcdefghijklmnop.1" }));
      expect(forged, `${name} with a false token`).toMatch(/^(Auth(Inner)?InvalidToken|InvalidAuthToken)$/);
      const seen: string[] = [];
      for (const ctx of [{}, ann, root]) seen.push(await thrown(() => call(ctx)));
      expect(seen, name).toEqual(expected);
    }
    expect(await outcome(server.userList({}, {}))).toBe("ok");
  });

  it("keeps being checked while there is an alarm", async () => {
    const { server } = await start(temporaryDir());
    await withUsers(server);
    const [root, ann] = [await login(server, "root"), await login(server, "ann")];
    for (const alarm of [AlarmType.NoSpace, AlarmType.Corrupt]) {
      await server.alarm({ action: AlarmAction.Activate, memberId: server.member.id, alarm }, root);
      expect(await outcome(server.put(put("s"), ann))).toBe("PermissionDenied");
      expect(await outcome(server.deleteRange({ key: bytes("s"), rangeEnd: EMPTY_BYTES, prevKv: false }, ann))).toBe(
        "PermissionDenied",
      );
    }
  });
});

describe("logins", () => {
  it("need a fitting password; a change of it, or of users, ends what went before", async () => {
    const { server } = await start(temporaryDir());
    expect(await outcome(server.authenticate({ name: "root", password: "x" }, {}))).toBe("AuthNotEnabled");
    await withUsers(server);
    const root = await login(server, "root");
    const ann = await login(server, "ann");
    for (const [name, password] of [
      ["ann", "x"],
      ["ann", ""],
      ["x", "x"],
    ] as const) {
      expect(await outcome(server.authenticate({ name, password }, {}))).toBe("AuthFailed");
    }
    await server.userAdd({ name: "cert", password: "", options: { noPassword: true }, hashedPassword: "" }, root);
    expect(await outcome(server.authenticate({ name: "cert", password: "" }, {}))).toBe("NoPasswordUser");
    const long = "p".repeat(73);
    expect(await outcome(server.userChangePassword({ name: "ann", password: long, hashedPassword: "" }, root))).toBe(
      "PasswordTooLong",
    );
    expect(await outcome(server.range(range("a"), ann))).toBe("ok");
    await server.userChangePassword({ name: "ann", password: "new", hashedPassword: "" }, root);
    expect(await outcome(server.range(range("a"), ann))).toBe("InvalidAuthToken");
    expect(await outcome(server.authenticate({ name: "ann", password: "annpw" }, {}))).toBe("AuthFailed");
    expect(await outcome(server.authenticate({ name: "ann", password: "new" }, {}))).toBe("ok");
  });

  it("with simple tokens end with a restart of the member, the rest stays", async () => {
    const dataDir = temporaryDir();
    const member = await start(dataDir);
    await withUsers(member.server);
    const ann = await login(member.server, "ann");
    const revision = member.server.authRevision();
    await member.stop();
    const { server } = await start(dataDir);
    expect(server.authRevision()).toBe(revision);
    expect(await outcome(server.range(range("a"), ann))).toBe("InvalidAuthToken");
    const again = await login(server, "ann");
    expect(await outcome(server.range(range("a"), again))).toBe("ok");
    expect(await outcome(server.range(range("s"), again))).toBe("PermissionDenied");
  });

  it("with JWTs survive a restart, but for keys no change of users", async () => {
    const dataDir = temporaryDir();
    const keyFile = path.join(temporaryDir(), "key.pem");
    const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
    fs.writeFileSync(keyFile, privateKey.export({ type: "pkcs8", format: "pem" }));
    const changes = { authToken: `jwt,sign-method=ES256,priv-key=${keyFile}` };
    const member = await start(dataDir, changes);
    await withUsers(member.server);
    const ann = await login(member.server, "ann");
    const root = await login(member.server, "root");
    await member.stop();
    const { server } = await start(dataDir, changes);
    expect(await outcome(server.range(range("a"), ann))).toBe("ok");
    expect(await thrown(() => server.checkWatchPermission(bytes("a"), EMPTY_BYTES, ann))).toBe("ok");
    expect(await thrown(() => server.checkWatchPermission(bytes("s"), EMPTY_BYTES, ann))).toBe("PermissionDenied");
    await server.roleAdd({ name: "another" }, root);
    expect(await outcome(server.range(range("a"), ann))).toBe("AuthOldRevision");
    expect(await outcome(server.put(put("a"), ann))).toBe("AuthOldRevision");
    expect(await outcome(server.userList({}, root))).toBe("ok");
  });

  it("by certificate name the user, unless there is a token", async () => {
    const { server } = await start(temporaryDir(), { clientCertAuth: true });
    await withUsers(server);
    const read = (ctx: RequestContext) => outcome(server.range(range("a"), ctx));
    expect(await read({ certCommonName: "ann" })).toBe("ok");
    expect(await read({ certCommonName: "stranger" })).toBe("PermissionDenied");
    expect(await read({ certCommonName: "" })).toBe("PermissionDenied");
    expect(await read({ certCommonName: "ann", token: "x" })).toBe("InvalidAuthToken");
    expect(await read({ certCommonName: "ann", isFromGateway: true })).toBe("UserEmpty");
    expect(await outcome(server.userList({}, { certCommonName: "root" }))).toBe("ok");
  });

  it("certificates name nobody unless that was asked for", async () => {
    const { server } = await start(temporaryDir());
    await withUsers(server);
    expect(await outcome(server.range(range("a"), { certCommonName: "ann" }))).toBe("UserEmpty");
    expect(await outcome(server.range(range("s"), { asRoot: true }))).toBe("ok");
  });

  it("a token of an entry that never comes is given up with its call", async () => {
    const { server } = await start(temporaryDir());
    await withUsers(server);
    const gaveUp = new AbortController();
    const reading = outcome(server.range(range("a"), { token: "abcdefghijklmnop.1000000", signal: gaveUp.signal }));
    gaveUp.abort();
    expect(await reading).toBe("InvalidAuthToken");
  });

  it("an expired lease goes although nobody asked", async () => {
    const { server } = await start(temporaryDir());
    await withUsers(server);
    const root = await login(server, "root");
    const { id } = await server.leaseGrant(LeaseGrantRequest.create({ ttl: 1 }), root);
    await server.put(put("s", { lease: id }), root);
    while ((await server.range(range("s"), root)).kvs.length > 0) await systemClock.sleep(50);
    expect((await server.leaseLeases(root)).leases).toEqual([]);
  });
});
