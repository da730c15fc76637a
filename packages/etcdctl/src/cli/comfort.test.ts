// What etcdctl does beyond 3.5: for people at a terminal, and for programs that ask for it.
import net from "node:net";
import { expect, test } from "vitest";
import { keyCandidates } from "../commands/complete.ts";
import { diagnose } from "../diagnose.ts";
import { etcdctl, etcdError, header, kv, rpcError } from "../testing/harness.ts";

const fail = (error: Error) => ({
  Range: () => {
    throw error;
  },
});

test("--errors=json makes an error one object, exit codes unchanged", async () => {
  const error = Object.assign(etcdError("etcdserver: permission denied"), { code: 7 });
  const { err, out, exit } = await etcdctl(["get", "k", "--errors=json"], { answers: fail(error) });
  expect({ out, exit }).toEqual({ out: "", exit: 1 });
  expect(JSON.parse(err)).toEqual({
    code: "PermissionDenied",
    message: "etcdserver: permission denied",
    step: "call",
    exitCode: 1,
  });
});

test.each([
  [["put", "--errors", "json"], "BadArgs", 128],
  [["get", "k", "-w", "bogus", "--errors=json"], "BadFeature", 4],
  [["get", "--nosuch", "--errors=json"], "Error", 1],
  [["nosuch", "--errors=json"], "Error", 1],
])("%j is one JSON line", async (words, code, exitCode) => {
  const { err, out, exit } = await etcdctl(words);
  expect({ out, exit }).toEqual({ out: "", exit: exitCode });
  expect(err.trimEnd().split("\n")).toHaveLength(1);
  expect(JSON.parse(err)).toMatchObject({ code, exitCode });
});

test("ETCDCTL_ERRORS=json does the same", async () => {
  const { err } = await etcdctl(["get"], { env: { ETCDCTL_ERRORS: "json" } });
  expect(JSON.parse(err)).toMatchObject({ code: "BadArgs" });
});

const deletion = {
  DeleteRange: () => ({ header: header(3), deleted: 2 }),
  Range: () => ({ header: header(2), count: 2 }),
};

test("del of a range asks on a terminal, with the count", async () => {
  const ask = async (stdin: string, ...words: string[]) =>
    etcdctl(["del", "--prefix", "k", ...words], { answers: deletion, isTerminal: true, stdin, env: { NO_COLOR: "1" } });
  expect(await ask("y\n")).toMatchObject({ exit: 0, out: "2\n", err: "Delete 2 keys? [y/N] " });
  const kept = await ask("\n");
  expect(kept).toMatchObject({ exit: 1, out: "", err: "Delete 2 keys? [y/N] Nothing was deleted.\n" });
  expect(kept.calls.map(({ method }) => method)).toEqual(["Range"]);
  expect(await ask("", "--yes")).toMatchObject({ exit: 0, out: "2\n", err: "" });
});

test("del of a range does not ask where nobody is", async () => {
  const { out, err, calls } = await etcdctl(["del", "--prefix", "k"], { answers: deletion });
  expect({ out, err }).toEqual({ out: "2\n", err: "" });
  expect(calls).toHaveLength(1);
});

test("a person is told which command or flag was meant; programs read what they know", async () => {
  const person = { isTerminal: true, env: { TERM: "dumb" } };
  expect((await etcdctl(["lease", "grnt"], person)).err).toBe(
    'etcdctl lease has no command "grnt"; did you mean "grant"?\n',
  );
  expect((await etcdctl(["lease", "grnt"])).err).toBe("");
  expect((await etcdctl(["get", "--prefx"], person)).err).toBe(
    "Error: unknown flag: --prefx\n\nError: unknown flag: --prefx\nDid you mean --prefix?\n",
  );
});

test("colours are for terminals, unless --color says otherwise", async () => {
  const answers = { Range: () => ({ header: header(2), kvs: [kv("k", "v")], count: 1 }) };
  const colored = "\x1b[36mk\x1b[39m\nv\n";
  const get = async (options: { isTerminal?: boolean; env?: Record<string, string> }, ...words: string[]) =>
    (await etcdctl(["get", "k", ...words], { answers, ...options })).out;
  expect(await get({})).toBe("k\nv\n");
  expect(await get({ isTerminal: true })).toBe(colored);
  expect(await get({ isTerminal: true, env: { NO_COLOR: "1" } })).toBe("k\nv\n");
  expect(await get({ isTerminal: true, env: { TERM: "dumb" } })).toBe("k\nv\n");
  expect(await get({ isTerminal: true }, "--color=never")).toBe("k\nv\n");
  expect(await get({}, "--color=always")).toBe(colored);
});

test("a person at a terminal sees our own version beside etcd's", async () => {
  const { out, err } = await etcdctl(["version"], { isTerminal: true });
  expect(out).toBe("etcdctl version: 3.5.16\nAPI version: 3.5\n");
  expect(err).toMatch(/^\(etcd-ts .*, Node .*\)\n$/);
});

const complete = async (words: string[], answers = {}) => (await etcdctl(["__complete", ...words], { answers })).out;

test("completion knows commands, flags and their values", async () => {
  expect(await complete(["le"])).toMatch(/^lease\t.*\n:done\n$/);
  expect(await complete(["lease", "g"])).toMatch(/^grant\t/);
  expect(await complete(["get", "--pri"])).toMatch(/^--print-value-only\t.*\n:done\n$/);
  expect(await complete(["get", "-w", "j"])).toBe("json\njsonl\n:done\n");
  expect(await complete(["get", "--order=D"])).toBe("--order=DESCEND\n:done\n");
  expect((await etcdctl(["__completeNoDesc", "ver"])).out).toBe("version\n:done\n");
});

test("completion asks the cluster for keys, users, roles, leases, members and endpoints", async () => {
  const answers = {
    Range: () => ({ header: header(1), kvs: ["a/1", "a/2", "ab"].map((key) => kv(key, "")), count: 3 }),
    UserList: () => ({ header: header(1), users: ["alice", "bob"] }),
    RoleList: () => ({ header: header(1), roles: ["reader"] }),
    LeaseLeases: () => ({ header: header(1), leases: [{ id: 31n }] }),
    MemberList: () => ({
      header: header(0),
      members: [{ id: 31n, name: "m", peerUrls: [], clientUrls: ["http://a:2379"], isLearner: false }],
    }),
  };
  expect(await complete(["get", "a"], answers)).toBe("a/\t2 keys\nab\n:nospace\n");
  expect(await complete(["user", "get", "a"], answers)).toBe("alice\n:done\n");
  expect(await complete(["user", "grant-role", "alice", ""], answers)).toBe("reader\n:done\n");
  expect(await complete(["lease", "revoke", ""], answers)).toBe("000000000000001f\n:done\n");
  expect(await complete(["member", "remove", ""], answers)).toBe("1f\tm\n:done\n");
  expect(await complete(["get", "--endpoints", ""], answers)).toBe("http://a:2379\tm\n:nospace\n");
  expect(await complete(["role", "grant-permission", "reader", "re"], answers)).toBe("read\nreadwrite\n:done\n");
});

test("completion is silent when the cluster is not there", async () => {
  const { out, err, exit } = await etcdctl(["__complete", "get", "a"], { answers: fail(rpcError(14, "gone")) });
  expect({ out, err, exit }).toEqual({ out: ":done\n", err: "", exit: 0 });
});

test("keyCandidates() goes a step at a time", () => {
  expect(keyCandidates(["a/b/1", "a/b/2", "a/c"], "a/").words).toEqual([
    ["a/b/", "2 keys"],
    ["a/c", ""],
  ]);
});

const listening = async (onConnection: (socket: net.Socket) => void): Promise<net.Server & AsyncDisposable> => {
  const sockets = new Set<net.Socket>();
  const server = net.createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => {});
    onConnection(socket);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return Object.assign(server, {
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  });
};

const portOf = (server: net.Server): number => (server.address() as net.AddressInfo).port;

test("diagnose() names the step that fails", async () => {
  const options = { tls: undefined, hasLeader: () => Promise.resolve(true) };
  expect(await diagnose("no-such-host.invalid:2379", options)).toMatchObject({ step: "dns" });
  let free: number;
  {
    await using gone = await listening(() => {});
    free = portOf(gone);
  }
  expect(await diagnose(`127.0.0.1:${free}`, options)).toMatchObject({ step: "tcp", problem: "connection refused" });
  expect(await diagnose("unix:///no/such.sock", options)).toMatchObject({ step: "tcp", problem: "no such socket" });
  await using silent = await listening((socket) => socket.write(Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0])));
  const endpoint = `127.0.0.1:${portOf(silent)}`;
  expect(await diagnose(endpoint, options)).toBeUndefined();
  expect(await diagnose(`http://${endpoint}`, { ...options, hasLeader: () => Promise.resolve(false) })).toMatchObject({
    step: "no leader",
  });
  expect(await diagnose(endpoint, { ...options, hasLeader: () => Promise.reject(new Error("late")) })).toMatchObject({
    step: "time-out",
  });
  expect(await diagnose(`https://${endpoint}`, options)).toMatchObject({ step: "tls" });
  await using closing = await listening((socket) => socket.destroy());
  expect(await diagnose(`127.0.0.1:${portOf(closing)}`, options)).toMatchObject({ step: "tls" });
});
