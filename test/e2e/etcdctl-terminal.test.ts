// etcdctl as a person meets it: on a real pseudo-terminal, which util-linux's `script` makes. Skipped where there is none.
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import path from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { freePort, Member, must, ourBin, temporaryFolder, until } from "./harness/processes.ts";

const hasScript = spawnSync("script", ["--version"]).stdout?.includes("util-linux") ?? false;
if (!hasScript) console.warn("etcdctl-terminal: skipped, there is no util-linux script to make a terminal with");

const quoted = (word: string): string => `'${word.replaceAll("'", `'\\''`)}'`;

/** A program on a terminal: what it shows, and the keys we press. */
class Terminal {
  readonly #child: ChildProcess;
  #shown = "";

  /** @param hasSize false: a terminal of 0 rows and columns, as programs make them that only read what is said */
  constructor(words: readonly string[], env: Record<string, string>, hasSize = true) {
    const size = hasSize ? "rows 24 cols 80" : "rows 0 cols 0";
    const command = `stty ${size}; exec ${[path.join(ourBin, "etcdctl"), ...words].map(quoted).join(" ")}`;
    this.#child = spawn(
      "script",
      ["--quiet", "--flush", "--return", "--echo", "never", "--command", command, "/dev/null"],
      {
        env: { PATH: process.env.PATH, HOME: process.env.HOME, TERM: "xterm", ...env },
        stdio: ["pipe", "pipe", "pipe"],
      },
    );
    this.#child.stdout?.on("data", (chunk: Buffer) => {
      this.#shown += chunk.toString();
    });
    this.#child.stdin?.on("error", () => {});
  }

  /** What stands on the screen, with plain line ends. */
  get shown(): string {
    return this.#shown.replaceAll("\r\n", "\n");
  }

  /** Waits for a text, then types. */
  async answer(text: string | RegExp, keys: string): Promise<void> {
    await this.sees(text);
    this.#child.stdin?.write(keys);
  }

  async sees(text: string | RegExp): Promise<void> {
    await until(`${text} on the screen`, () =>
      typeof text === "string" ? this.shown.includes(text) : text.test(this.shown),
    );
  }

  async end(): Promise<number> {
    if (this.#child.exitCode === null) await once(this.#child, "close");
    return this.#child.exitCode ?? -1;
  }
}

const folder = temporaryFolder("terminal");
let member: Member;

beforeAll(async () => {
  if (hasScript) member = await Member.start({ dataDir: path.join(folder.path, "d") });
});

afterAll(async () => {
  await member?.[Symbol.asyncDispose]();
  folder[Symbol.dispose]();
});

const terminal = (words: readonly string[], env: Record<string, string> = { NO_COLOR: "1" }): Terminal =>
  new Terminal([`--endpoints=${member.endpoint}`, ...words], env);

test.skipIf(!hasScript)("user add asks for a password twice and does not show it", async () => {
  const screen = terminal(["user", "add", "alice"]);
  await screen.answer("Password of alice: ", "secreX\x7ft\r");
  await screen.answer("Type password of alice again for confirmation: ", "secret\r");
  expect(await screen.end()).toBe(0);
  expect(screen.shown).toBe(
    "Password of alice: \nType password of alice again for confirmation: \nUser alice created\n",
  );
});

test.skipIf(!hasScript)("ctrl-C at a password prompt ends the command and leaves the terminal as it was", async () => {
  const screen = terminal(["user", "add", "bob"]);
  await screen.answer("Password of bob: ", "half\x03");
  expect(await screen.end()).not.toBe(0);
  expect(screen.shown).not.toContain("half");
  expect(await must("etcdctl", ["--endpoints", member.endpoint, "user", "list"])).not.toContain("bob");
});

test.skipIf(!hasScript)("del of a range asks, with the count, and keeps the keys unless told yes", async () => {
  const ctl = (...words: string[]) => must("etcdctl", ["--endpoints", member.endpoint, ...words]);
  await ctl("put", "d/1", "x");
  await ctl("put", "d/2", "y");
  const no = terminal(["del", "--prefix", "d/"]);
  await no.answer("Delete 2 keys? [y/N] ", "n\r");
  expect(await no.end()).toBe(1);
  expect(no.shown).toContain("Nothing was deleted.");
  const yes = terminal(["del", "--prefix", "d/"]);
  await yes.answer("[y/N] ", "y\r");
  expect(await yes.end()).toBe(0);
  expect(await ctl("get", "--prefix", "d/")).toBe("");
});

test.skipIf(!hasScript)("a terminal without a size gets no colour, question or advice", async () => {
  const screen = (...words: string[]) => new Terminal([`--endpoints=${member.endpoint}`, ...words], {}, false);
  await must("etcdctl", ["--endpoints", member.endpoint, "put", "n/1", "x"]);
  const deletion = screen("del", "--prefix", "n/");
  expect(await deletion.end()).toBe(0);
  expect(deletion.shown).toBe("1\n");
  const failure = screen("member", "remove", "1234");
  expect(await failure.end()).toBe(1);
  expect(failure.shown).toMatch(/^Error: etcdserver: member not found\n$/m);
  const dead = new Terminal(["--endpoints=127.0.0.1:1", "--command-timeout=500ms", "get", "k"], {}, false);
  expect(await dead.end()).toBe(1);
  expect(dead.shown).toMatch(/Error: context deadline exceeded\n$/);
});

test.skipIf(!hasScript)("txn -i says what it waits for", async () => {
  const screen = terminal(["txn", "-i"]);
  await screen.answer("compares:\n", 'ver("t") = "0"\r\r');
  await screen.answer("success requests (get, put, del):\n", "put t 1\r\r");
  await screen.answer("failure requests (get, put, del):\n", "get t\r\r");
  expect(await screen.end()).toBe(0);
  expect(screen.shown).toMatch(/SUCCESS\n\nOK\n$/);
});

test.skipIf(!hasScript)("watch shows events in colour and ends by ctrl-C", async () => {
  const screen = terminal(["watch", "w", "--rev=1"], {});
  await must("etcdctl", ["--endpoints", member.endpoint, "put", "w", "1"]);
  await screen.answer("\x1b[32mPUT\x1b[39m\n\x1b[36mw\x1b[39m\n1\n", "\x03");
  expect(await screen.end()).not.toBe(0);
});

test.skipIf(!hasScript)("a dead endpoint names the step that failed, under etcdctl's own line", async () => {
  const port = await freePort();
  const screen = new Terminal([`--endpoints=127.0.0.1:${port}`, "--command-timeout=500ms", "get", "k"], {
    TERM: "dumb",
  });
  expect(await screen.end()).toBe(1);
  expect(screen.shown).toContain("Error: context deadline exceeded\n");
  expect(screen.shown).toContain(`  127.0.0.1:${port}: tcp: connection refused\n`);
  expect(screen.shown).toContain("try: is etcd running there?");
});

test.skipIf(!hasScript)("user passwd refuses two passwords that differ, and an empty one", async () => {
  await must("etcdctl", ["--endpoints", member.endpoint, "user", "add", "carol:old"]);
  const differ = terminal(["user", "passwd", "carol"]);
  await differ.answer("Password of carol: ", "one\r");
  await differ.answer("again for confirmation: ", "two\r");
  expect(await differ.end()).toBe(128);
  expect(differ.shown).toContain("Error: given passwords are different\n");
  const empty = terminal(["user", "passwd", "carol"]);
  await empty.answer("Password of carol: ", "\r");
  expect(await empty.end()).toBe(128);
  expect(empty.shown).toContain("Error: empty password\n");
});

test.skipIf(!hasScript)("--user without a password asks for it", async () => {
  const screen = terminal(["get", "nothing", "--user", "carol"]);
  await screen.answer("Password: ", "whatever\r");
  expect(await screen.end()).toBe(0);
  expect(screen.shown).not.toContain("whatever");
});

test.skipIf(!hasScript)("watch -i takes watches from the keyboard", async () => {
  await must("etcdctl", ["--endpoints", member.endpoint, "put", "wi", "1"]);
  const screen = terminal(["watch", "-i"]);
  await screen.answer("", "bogus\r");
  await screen.answer("Invalid command bogus (only support watch)\n", "watch wi --rev=1\r");
  await screen.answer("PUT\nwi\n1\n", "\x03");
  expect(await screen.end()).not.toBe(0);
});

test.skipIf(!hasScript).each([
  [{}, [], true],
  [{ NO_COLOR: "1" }, [], false],
  [{ TERM: "dumb" }, [], false],
  [{}, ["--color=never"], false],
  [{ NO_COLOR: "1", TERM: "dumb" }, ["--color=always"], true],
] as const)("colours with %j and %j", async (env, words, isColored) => {
  await must("etcdctl", ["--endpoints", member.endpoint, "put", "color", "1"]);
  const screen = terminal(["get", "color", ...words], env as Record<string, string>);
  expect(await screen.end()).toBe(0);
  expect(screen.shown).toBe(isColored ? "\x1b[36mcolor\x1b[39m\n1\n" : "color\n1\n");
});

test.skipIf(!hasScript)("check datascale shows how far it is, and ends by ctrl-C", async () => {
  const screen = terminal(["check", "datascale", "--prefix=scale/"], {});
  await screen.answer(/\[=+> *\] +\d+% \d+ of 10000/, "\x03");
  expect(await screen.end()).not.toBe(0);
});

test.skipIf(!hasScript)("a watch goes on after its server was killed, and says from where", async () => {
  const dataDir = path.join(folder.path, "again");
  let server = await Member.start({ dataDir });
  const ports = [server.clientUrl, server.peerUrl].map((url) => Number(new URL(url).port));
  const [clientPort = 0, peerPort = 0] = ports;
  try {
    const ctl = (...words: string[]) => must("etcdctl", ["--endpoints", server.endpoint, ...words]);
    await ctl("put", "w", "1");
    const screen = new Terminal([`--endpoints=${server.endpoint}`, "watch", "w", "--rev=2"], { NO_COLOR: "1" });
    await screen.sees("PUT\nw\n1\n");
    await server.kill();
    server = await Member.start({ dataDir, clientPort, peerPort });
    await ctl("put", "w", "2");
    await screen.answer("PUT\nw\n2\n", "\x03");
    await screen.end();
    expect(screen.shown).toContain("watch: the connection was lost; going on from revision 3\n");
    expect(screen.shown.match(/PUT\n/g)).toHaveLength(2);
  } finally {
    await server.kill();
  }
});
