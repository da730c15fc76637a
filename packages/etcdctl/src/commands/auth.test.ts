import { expect, test } from "vitest";
import { bytes, etcdctl, etcdError, header, type Recorded } from "../testing/harness.ts";

const done = () => ({ header: header(1) });

test("auth enable gives root its role when that is missing", async () => {
  let hasRole = false;
  const answers = {
    AuthEnable: () => {
      if (!hasRole) throw etcdError("etcdserver: root user does not have root role", "RootRoleNotExist");
      return done();
    },
    RoleAdd: () => {
      throw etcdError("etcdserver: role name already exists", "RoleAlreadyExist");
    },
    UserGrantRole: () => {
      hasRole = true;
      return done();
    },
  };
  const { out, exit, calls } = await etcdctl(["auth", "enable"], { answers });
  expect({ out, exit }).toEqual({ out: "Authentication Enabled\n", exit: 0 });
  expect(calls.map(({ method }) => method)).toEqual(["AuthEnable", "RoleAdd", "UserGrantRole", "AuthEnable"]);
});

test("auth status and disable", async () => {
  const status = () => ({ header: header(1), enabled: true, authRevision: 4 });
  expect((await etcdctl(["auth", "status"], { answers: { AuthStatus: status } })).out).toBe(
    "Authentication Status: true\nAuthRevision: 4\n",
  );
  expect((await etcdctl(["auth", "disable"], { answers: { AuthDisable: done } })).out).toBe(
    "Authentication Disabled\n",
  );
});

const added = async (words: string[], stdin = "") => {
  const { out, exit, err, calls } = await etcdctl(["user", "add", ...words], { answers: { UserAdd: done }, stdin });
  return { out, exit, err, request: calls[0]?.request };
};

test("user add takes the password from the name, a flag, standard input or a prompt", async () => {
  const user = (name: string, password: string, noPassword = false) => ({ name, password, options: { noPassword } });
  expect((await added(["a:b:c"])).request).toEqual(user("a", "b:c"));
  expect((await added(["a:"])).request).toEqual(user("a", ""));
  expect((await added(["a:b", "--new-user-password=x"])).request).toEqual(user("a:b", "x"));
  expect((await added(["a:b", "--no-password"])).request).toEqual(user("a:b", "", true));
  expect((await added(["a", "--interactive=false"], "  pw rest\n")).request).toEqual(user("a", "pw"));
  const asked = await added(["a"], "pw\npw\n");
  expect(asked.request).toEqual(user("a", "pw"));
  expect(asked.out).toBe("Password of a: \nType password of a again for confirmation: \nUser a created\n");
});

test.each([
  [["a"], "one\ntwo\n", "given passwords are different"],
  [["a"], "\n", "empty password"],
  [[":pw"], "", "empty user name is not allowed"],
  [[], "", "user add command requires user name as its argument"],
])("user add %j with input %j is refused", async (words, stdin, message) => {
  expect(await added(words, stdin)).toMatchObject({ exit: 128, err: `Error: ${message}\n`, request: undefined });
});

test("user get, list, grant and revoke", async () => {
  const answers = {
    UserGet: () => ({ header: header(1), roles: ["r", "s"] }),
    UserList: () => ({ header: header(1), users: ["a", "b"] }),
    UserGrantRole: done,
    UserRevokeRole: done,
    UserDelete: done,
    UserChangePassword: done,
    RoleGet: () => ({ header: header(1), perm: [{ permType: 2, key: bytes("k"), rangeEnd: bytes("") }] }),
  };
  const out = async (line: string) => (await etcdctl(line.split(" "), { answers, stdin: "pw\n" })).out;
  expect(await out("user get a")).toBe("User: a\nRoles: r s\n");
  expect(await out("user list")).toBe("a\nb\n");
  expect(await out("user grant-role a r")).toBe("Role r is granted to user a\n");
  expect(await out("user revoke-role a r")).toBe("Role r is revoked from user a\n");
  expect(await out("user delete a")).toBe("User a deleted\n");
  expect(await out("user passwd a --interactive=false")).toBe("Password updated\n");
  const role = (name: string) => `\nRole ${name}\nKV Read:\n\tk\nKV Write:\n\tk\n`;
  expect(await out("user get a --detail")).toBe(`User: a\n${role("r")}${role("s")}`);
});

test("role get shows single keys, ranges, prefixes and open ends", async () => {
  const perm = [
    { permType: 0, key: bytes("a"), rangeEnd: bytes("c") },
    { permType: 1, key: bytes("p/"), rangeEnd: bytes("p0") },
    { permType: 2, key: bytes("z"), rangeEnd: bytes("\0") },
    { permType: 2, key: bytes("k"), rangeEnd: bytes("") },
  ];
  const { out } = await etcdctl(["role", "get", "r"], { answers: { RoleGet: () => ({ header: header(1), perm }) } });
  expect(out).toBe(
    "Role r\nKV Read:\n\t[a, c)\n\t[z, <open ended>\n\tk\nKV Write:\n\t[p/, p0) (prefix p/)\n\t[z, <open ended>\n\tk\n",
  );
});

const permission = async (...words: string[]) => {
  const answers = { RoleGrantPermission: done, RoleRevokePermission: done };
  return etcdctl(["role", ...words], { answers });
};

test("role grant-permission and revoke-permission read ranges alike", async () => {
  const granted = async (...words: string[]) => {
    const { calls } = await permission("grant-permission", "r", "ReadWrite", ...words);
    const { perm } = (calls[0] as Recorded).request as unknown as {
      perm: { permType: number; key: Uint8Array; rangeEnd: Uint8Array };
    };
    return [perm.permType, Buffer.from(perm.key).toString(), Buffer.from(perm.rangeEnd).toString()];
  };
  expect(await granted("k")).toEqual([2, "k", ""]);
  expect(await granted("a", "b")).toEqual([2, "a", "b"]);
  expect(await granted("p/", "--prefix")).toEqual([2, "p/", "p0"]);
  expect(await granted("z", "--from-key")).toEqual([2, "z", "\0"]);
  expect(await granted("")).toEqual([2, "\0", ""]);
  expect(await granted("", "--prefix")).toEqual([2, "\0", "\0"]);
  const { out } = await permission("revoke-permission", "r", "p/", "--prefix");
  expect(out).toBe("Permission of range [p/, p0) is revoked from role r\n");
  expect((await permission("revoke-permission", "r", "", "--prefix")).out).toBe(
    "Permission of range [, <open ended> is revoked from role r\n",
  );
});

test.each([
  [
    ["grant-permission", "r", "read"],
    "role grant command requires role name, permission type, and key [endkey] as its argument",
  ],
  [["grant-permission", "r", "bogus", "k"], "invalid permission type: bogus"],
  [["grant-permission", "r", "read", "a", "b", "--prefix"], "unexpected endkey argument with --prefix flag"],
  [["revoke-permission", "r", "a", "b", "--from-key"], "unexpected endkey argument with --from-key flag"],
  [["revoke-permission", "r", "a", "--prefix", "--from-key"], "--from-key and --prefix flags are mutually exclusive"],
  [["revoke-permission", "r"], "role revoke-permission command requires role name and key [endkey] as its argument"],
  [["list", "x"], "role list command requires no arguments"],
  [["add"], "role add command requires role name as its argument"],
])("role %j is refused", async (words, message) => {
  expect(await permission(...words)).toMatchObject({ exit: 128, err: `Error: ${message}\n` });
});

test("role list, add and delete", async () => {
  const answers = { RoleList: () => ({ header: header(1), roles: ["r", "s"] }), RoleAdd: done, RoleDelete: done };
  const out = async (line: string) => (await etcdctl(line.split(" "), { answers })).out;
  expect(await out("role list")).toBe("r\ns\n");
  expect(await out("role list -w fields")).toMatch(/"Roles" : "r" "s"\n$/);
  expect(await out("role add r")).toBe("Role r created\n");
  expect(await out("role delete r")).toBe("Role r deleted\n");
});
