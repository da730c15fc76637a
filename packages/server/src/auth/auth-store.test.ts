import { PermissionType, PutRequest } from "@etcd-ts/client/wire";
import { describe, expect, it } from "vitest";
import { EMPTY_BYTES, utf8Bytes } from "../lib/bytes.ts";
import { InternalRaftRequest } from "../pb/etcdserverpb.ts";
import { noTokenStore, outcomeOf, StoreHarness } from "./testing/store.ts";

const READ = PermissionType.Read;
const READ_WRITE = PermissionType.ReadWrite;
const hashed = (text: string) => Buffer.from(text).toString("base64");
const perm = (permType: PermissionType, key: string, rangeEnd = "") => ({
  permType,
  key: utf8Bytes(key),
  rangeEnd: utf8Bytes(rangeEnd),
});

function addRoot(harness: StoreHarness): void {
  harness.apply({ authUserAdd: { name: "root", hashedPassword: hashed("$2a$") } });
  harness.apply({ authUserGrantRole: { user: "root", role: "root" } });
}

describe("rows", () => {
  it("are etcd's, byte for byte", async () => {
    await using harness = await StoreHarness.open();
    expect(harness.rows("auth")).toEqual(["authRevision 0000000000000001"]);
    addRoot(harness);
    harness.apply({ authUserAdd: { name: "u", options: { noPassword: true } } });
    harness.apply({ authRoleAdd: { name: "r" } });
    harness.apply({ authRoleGrantPermission: { name: "r", perm: perm(READ_WRITE, "a", "b") } });
    harness.apply({ authRoleGrantPermission: { name: "r", perm: perm(READ, "0") } });
    expect(harness.rows("authUsers")).toEqual([
      "root 0a04726f6f74120424326124" + "1a04726f6f74" + "2200",
      "u 0a017522020801",
    ]);
    expect(harness.rows("authRoles")).toEqual(["r 0a017212031201301208080212016" + "11a0162"]);
    expect(harness.rows("auth")).toEqual(["authRevision 0000000000000007"]);
    harness.apply({ authEnable: {} });
    expect(harness.rows("auth")).toEqual(["authEnabled 01", "authRevision 0000000000000007"]);
    harness.apply({ authDisable: {} });
    expect(harness.rows("auth")).toEqual(["authEnabled 00", "authRevision 0000000000000008"]);
  });

  it("keep roles sorted, and permissions by their keys", async () => {
    await using harness = await StoreHarness.open();
    for (const name of ["r", "Z", "\u{1f600}", "\u{ff5e}"]) {
      harness.apply({ authRoleAdd: { name } });
      harness.apply({ authUserAdd: { name: "u", options: { noPassword: true } } }); // all but the first are refused
      harness.apply({ authUserGrantRole: { user: "u", role: name } });
    }
    expect(harness.apply({ authUserGet: { name: "u" } })).toEqual({ roles: ["Z", "r", "\u{ff5e}", "\u{1f600}"] });
    expect(harness.apply({ authRoleList: {} })).toEqual({ roles: ["Z", "r", "\u{ff5e}", "\u{1f600}"] });
    for (const key of ["m", "b", "x"]) harness.apply({ authRoleGrantPermission: { name: "r", perm: perm(READ, key) } });
    expect(harness.permissionsOf("r")).toEqual(["READ b", "READ m", "READ x"]);
  });

  it("a name that is no UTF-8 keeps its bytes", async () => {
    await using harness = await StoreHarness.open();
    harness.apply({ authRoleAdd: { name: "r\udc80" } });
    expect(harness.rows("authRoles")).toEqual(["r\x80 0a027280"]);
    expect(harness.apply({ authRoleList: {} })).toEqual({ roles: ["r\udc80"] });
  });

  it("a name that cannot be the key of a row is refused, not stored and not fatal", async () => {
    await using harness = await StoreHarness.open();
    const name = "n".repeat(5000);
    expect(harness.apply({ authUserAdd: { name, options: { noPassword: true } } })).toBe("InvalidAuthManagement");
    expect(harness.apply({ authRoleAdd: { name } })).toBe("InvalidAuthManagement");
    expect(harness.apply({ authUserGet: { name } })).toBe("UserNotFound");
    expect(harness.apply({ authRoleDelete: { role: name } })).toBe("RoleNotFound");
    expect(harness.store.revision).toBe(1);
  });
});

describe("changes", () => {
  it("raise the revision when they change something, and only then", async () => {
    await using harness = await StoreHarness.open();
    const { store } = harness;
    addRoot(harness);
    expect(store.revision).toBe(3);
    harness.apply({ authUserGrantRole: { user: "root", role: "root" } });
    harness.apply({ authEnable: {} });
    harness.apply({ authEnable: {} });
    expect(store.revision).toBe(3);
    harness.apply({ authDisable: {} });
    harness.apply({ authDisable: {} });
    expect(store.revision).toBe(4);
    harness.apply({ authUserChangePassword: { name: "root", hashedPassword: hashed("x") } });
    expect(store.revision).toBe(5);
  });

  it("are refused with etcd's errors", async () => {
    await using harness = await StoreHarness.open();
    const apply = harness.apply.bind(harness);
    expect(apply({ authEnable: {} })).toBe("RootUserNotExist");
    expect(apply({ authenticate: { name: "root" } })).toBe("AuthNotEnabled");
    apply({ authUserAdd: { name: "root", options: { noPassword: true } } });
    expect(apply({ authEnable: {} })).toBe("RootRoleNotExist");
    apply({ authUserGrantRole: { user: "root", role: "root" } });
    expect(apply({ authUserAdd: { name: "" } })).toBe("UserEmpty");
    expect(apply({ authUserAdd: { name: "root" } })).toBe("UserAlreadyExist");
    expect(apply({ authUserAdd: { name: "x", hashedPassword: "no base64!" } })).toBe("NoPasswordUser");
    for (const body of [
      { authUserDelete: { name: "x" } },
      { authUserGet: { name: "x" } },
      { authUserChangePassword: { name: "x" } },
      { authUserGrantRole: { user: "x", role: "root" } },
      { authUserRevokeRole: { name: "x", role: "r" } },
    ]) {
      expect(apply(body)).toBe("UserNotFound");
    }
    expect(apply({ authUserGrantRole: { user: "root", role: "r" } })).toBe("RoleNotFound");
    expect(apply({ authUserRevokeRole: { name: "root", role: "r" } })).toBe("RoleNotGranted");
    expect(apply({ authRoleAdd: { name: "" } })).toBe("RoleEmpty");
    apply({ authRoleAdd: { name: "r" } });
    expect(apply({ authRoleAdd: { name: "r" } })).toBe("RoleAlreadyExist");
    for (const body of [
      { authRoleDelete: { role: "x" } },
      { authRoleGet: { role: "x" } },
      { authRoleGrantPermission: { name: "x", perm: perm(READ, "k") } },
      { authRoleRevokePermission: { role: "x", key: utf8Bytes("k") } },
    ]) {
      expect(apply(body)).toBe("RoleNotFound");
    }
    expect(apply({ authRoleGrantPermission: { name: "r" } })).toBe("PermissionNotGiven");
    expect(apply({ authRoleGrantPermission: { name: "r", perm: perm(READ, "") } })).toBe("InvalidAuthManagement");
    expect(apply({ authRoleGrantPermission: { name: "r", perm: perm(READ, "b", "a") } })).toBe("InvalidAuthManagement");
    expect(apply({ authRoleGrantPermission: { name: "r", perm: perm(READ, "b", "b") } })).toBe("InvalidAuthManagement");
    expect(apply({ authRoleGrantPermission: { name: "r", perm: perm(READ, "b", "\0") } })).toEqual({});
    expect(apply({ authRoleRevokePermission: { role: "r", key: utf8Bytes("b") } })).toBe("PermissionNotGranted");
  });

  it("root and its role cannot go while auth is on", async () => {
    await using harness = await StoreHarness.open();
    addRoot(harness);
    harness.apply({ authRoleAdd: { name: "root" } });
    harness.apply({ authEnable: {} });
    expect(harness.apply({ authUserDelete: { name: "root" } })).toBe("InvalidAuthManagement");
    expect(harness.apply({ authRoleDelete: { role: "root" } })).toBe("InvalidAuthManagement");
    expect(harness.apply({ authUserRevokeRole: { name: "root", role: "root" } })).toBe("InvalidAuthManagement");
    harness.apply({ authDisable: {} });
    expect(harness.apply({ authRoleDelete: { role: "root" } })).toEqual({});
    expect(harness.apply({ authUserGet: { name: "root" } })).toEqual({ roles: [] });
    expect(harness.apply({ authUserDelete: { name: "root" } })).toEqual({});
    expect(harness.apply({ authUserList: {} })).toEqual({ users: [] });
  });

  it("granting a permission again replaces its kind; of several that begin at one key etcd looks at the first", async () => {
    await using harness = await StoreHarness.open();
    const grant = (permission: ReturnType<typeof perm>) =>
      harness.apply({ authRoleGrantPermission: { name: "r", perm: permission } });
    harness.apply({ authRoleAdd: { name: "r" } });
    grant(perm(READ, "k"));
    grant(perm(READ_WRITE, "k"));
    expect(harness.permissionsOf("r")).toEqual(["READWRITE k"]);
    grant(perm(READ, "k", "l"));
    grant(perm(READ_WRITE, "k", "l"));
    expect(harness.permissionsOf("r")).toEqual(["READWRITE k", "READ k..l", "READWRITE k..l"]);
    harness.apply({ authRoleRevokePermission: { role: "r", key: utf8Bytes("k"), rangeEnd: utf8Bytes("l") } });
    expect(harness.permissionsOf("r")).toEqual(["READWRITE k"]);
  });

  it("a password in clear, as servers before 3.5 logged it, is hashed alike on every member", async () => {
    await using one = await StoreHarness.open();
    await using other = await StoreHarness.open();
    for (const harness of [one, other]) harness.apply({ authUserAdd: { name: "old", password: "secret" } });
    expect(one.rows("authUsers")).toEqual(other.rows("authUsers"));
    expect(Buffer.from(one.store.user("old")?.password ?? EMPTY_BYTES).toString()).toMatch(/^\$2a\$04\$.{53}$/);
  });

  it("tokens end with their user and its password", async () => {
    const told: string[] = [];
    const tokens = {
      ...noTokenStore,
      enable: () => told.push("enable"),
      disable: () => told.push("disable"),
      forget: (name: string) => told.push(`forget ${name}`),
    };
    await using harness = await StoreHarness.open({ tokens });
    addRoot(harness);
    harness.apply({ authUserAdd: { name: "u", options: { noPassword: true } } });
    harness.apply({ authEnable: {} });
    expect(harness.apply({ authenticate: { name: "root", simpleToken: "prefix" } })).toEqual({ token: "prefix.5" });
    expect(harness.apply({ authenticate: { name: "u", simpleToken: "prefix" } })).toBe("AuthFailed");
    expect(harness.apply({ authenticate: { name: "x", simpleToken: "prefix" } })).toBe("AuthFailed");
    harness.apply({ authUserChangePassword: { name: "root", hashedPassword: hashed("y") } });
    harness.apply({ authUserDelete: { name: "u" } });
    harness.apply({ authDisable: {} });
    expect(told).toEqual(["disable", "enable", "forget root", "forget u", "disable"]);
  });
});

describe("checks", () => {
  const root = (harness: StoreHarness) => ({ username: "root", authRevision: harness.store.revision });

  it("pass for everybody while auth is off", async () => {
    await using harness = await StoreHarness.open();
    const { store } = harness;
    store.checkRange(undefined, utf8Bytes("k"), EMPTY_BYTES);
    store.checkAdmin(undefined);
    store.checkNamed(undefined);
    store.checkApply(InternalRaftRequest.create({ authUserList: {} }), undefined);
  });

  it("a change of permissions is seen at once, and makes older names void", async () => {
    await using harness = await StoreHarness.open();
    const { store } = harness;
    addRoot(harness);
    harness.apply({ authUserAdd: { name: "u", options: { noPassword: true } } });
    harness.apply({ authRoleAdd: { name: "r" } });
    harness.apply({ authUserGrantRole: { user: "u", role: "r" } });
    harness.apply({ authEnable: {} });
    const read = (authRevision = store.revision) =>
      outcomeOf(() => store.checkRange({ username: "u", authRevision }, utf8Bytes("k"), EMPTY_BYTES));
    expect(read()).toBe("PermissionDenied");
    const before = store.revision;
    harness.apply({ authRoleGrantPermission: { name: "r", perm: perm(READ, "k") } });
    expect(read()).toBe("ok");
    expect(read(before)).toBe("AuthOldRevision");
    harness.apply({ authRoleDelete: { role: "r" } });
    expect(read()).toBe("PermissionDenied");
    harness.apply({ authUserGrantRole: { user: "u", role: "root" } });
    expect(read()).toBe("ok");
    harness.apply({ authUserDelete: { name: "u" } });
    expect(read()).toBe("PermissionDenied");
  });

  it("are the same after a restart", async () => {
    const leases = { keysOfLease: (id: bigint) => (id === 7n ? [utf8Bytes("other")] : []) };
    await using harness = await StoreHarness.open({ leases });
    addRoot(harness);
    harness.apply({ authUserAdd: { name: "u", options: { noPassword: true } } });
    harness.apply({ authRoleAdd: { name: "r" } });
    harness.apply({ authRoleGrantPermission: { name: "r", perm: perm(READ_WRITE, "a", "m") } });
    harness.apply({ authUserGrantRole: { user: "u", role: "r" } });
    harness.apply({ authEnable: {} });
    const decisions = () => {
      const u = { username: "u", authRevision: harness.store.revision };
      const put = (key: string, lease: bigint) => PutRequest.create({ key: utf8Bytes(key), lease });
      return [
        outcomeOf(() => harness.store.checkPut(u, put("b", 0n))),
        outcomeOf(() => harness.store.checkPut(u, put("b", 6n))),
        outcomeOf(() => harness.store.checkPut(u, put("b", 7n))),
        outcomeOf(() => harness.store.checkPut(u, put("z", 0n))),
        outcomeOf(() => harness.store.checkAdmin(u)),
        outcomeOf(() => harness.store.checkAdmin(root(harness))),
      ];
    };
    const before = decisions();
    expect(before).toEqual(["ok", "ok", "PermissionDenied", "PermissionDenied", "PermissionDenied", "ok"]);
    const { revision } = harness.store;
    await harness.restart();
    expect(harness.store.isEnabled).toBe(true);
    expect(harness.store.revision).toBe(revision);
    expect(decisions()).toEqual(before);
  });
});
