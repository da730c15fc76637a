// The real Io. Output is written at once and synchronously, so that nothing is lost when the process ends and a slow
// reader of a pipe holds us up instead of filling our memory.
import fs from "node:fs";
import path from "node:path";
import tty from "node:tty";
import { fileURLToPath } from "node:url";
import { fromBytes, toBytes } from "./go/bytes.ts";
import type { Child, ChildEnd, Input, Io, Output } from "./io.ts";

export function processIo(argv: readonly string[]): Io {
  return {
    argv: exactArguments(argv),
    env: process.env,
    out: output(1),
    err: output(2),
    input,
    sibling,
    run: runChild,
    catchSignals,
    now: () => performance.now(),
    timestamp,
  };
}

/**
 * Whether `nohup` started us, by the variable in which shells leave the path of what they start. Node takes back that a
 * hangup is ignored, and does not say that it was.
 */
export const isUnderNohup = (env: Io["env"]): boolean => path.basename(env._ ?? "") === "nohup";

/** Node turns argument bytes that are no UTF-8 into U+FFFD; where the system tells, the true bytes are looked up. */
function exactArguments(argv: readonly string[]): readonly string[] {
  if (!argv.some((word) => word.includes("\ufffd"))) return argv;
  try {
    const all = fromBytes(fs.readFileSync("/proc/self/cmdline")).split("\0").slice(0, -1);
    return all.slice(all.length - argv.length);
  } catch {
    return argv;
  }
}

/**
 * Whether a person looks at what we write. A pseudo-terminal without a size is held by a program that reads it for
 * etcdctl's own words (expect scripts): it gets what a pipe gets.
 */
function hasScreen(fd: 1 | 2): boolean {
  return tty.isatty(fd) && (fd === 1 ? process.stdout : process.stderr).columns > 0;
}

function output(fd: 1 | 2): Output {
  return {
    get isTerminal() {
      return hasScreen(fd);
    },
    write(piece) {
      const bytes = typeof piece === "string" ? toBytes(piece) : piece;
      try {
        for (let done = 0; done < bytes.length; ) done += writeSome(fd, bytes, done);
      } catch (error) {
        // Where errors cannot be told, the exit code still is to tell them.
        if (fd === 1) throw error;
      }
    },
  };
}

function writeSome(fd: number, bytes: Uint8Array, offset: number): number {
  try {
    return fs.writeSync(fd, bytes, offset);
  } catch (error) {
    switch ((error as NodeJS.ErrnoException).code) {
      case "EAGAIN":
        pause(5);
        return 0;
      case "EPIPE":
        // Nobody reads on: end as a Unix tool does.
        process.kill(process.pid, "SIGPIPE");
        return process.exit(141);
      default:
        throw error;
    }
  }
}

const pause = (ms: number): void => {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
};

/** Bytes of standard input, waiting for them; 0 at the end. */
function readSome(buffer: Uint8Array, length: number): number {
  for (;;) {
    try {
      return fs.readSync(0, buffer, 0, length, null);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === "EOF") return 0;
      if (code !== "EAGAIN") throw error;
      pause(10);
    }
  }
}

const input: Input = {
  get isTerminal() {
    return tty.isatty(0);
  },
  readAll() {
    const chunks: Uint8Array[] = [];
    for (;;) {
      const chunk = new Uint8Array(64 * 1024);
      const length = readSome(chunk, chunk.length);
      if (length === 0) return Promise.resolve(Buffer.concat(chunks));
      chunks.push(chunk.subarray(0, length));
    }
  },
  async *lines() {
    let rest: Uint8Array = new Uint8Array(0);
    for await (const chunk of process.stdin) {
      rest = Buffer.concat([rest, chunk as Uint8Array]);
      for (let end = rest.indexOf(10); end >= 0; end = rest.indexOf(10)) {
        yield fromBytes(rest.subarray(0, end));
        rest = rest.subarray(end + 1);
      }
    }
  },
  readLine(isSecret) {
    if (isSecret && tty.isatty(0)) return readHidden();
    const bytes: number[] = [];
    const one = new Uint8Array(1);
    while (readSome(one, 1) === 1 && one[0] !== 10) bytes.push(one[0] as number);
    if (bytes.at(-1) === 13) bytes.pop();
    return Promise.resolve(fromBytes(Uint8Array.from(bytes)));
  },
};

const CTRL_C = 3;
const CTRL_D = 4;
const BACKSPACE = [8, 127];
const LINE_ENDS = [10, 13];

/** A line from the terminal that is not shown. The terminal is put right again whatever ends it. */
function readHidden(): Promise<string> {
  const { stdin } = process;
  return new Promise((resolve) => {
    let bytes: number[] = [];
    const finish = (): void => {
      stdin.off("data", onData);
      stdin.setRawMode(false);
      stdin.pause();
      for (const name of ["SIGTERM", "SIGHUP"] as const) process.off(name, onSignal);
    };
    const onSignal = (name: NodeJS.Signals): void => {
      finish();
      process.kill(process.pid, name);
    };
    const onData = (chunk: Uint8Array): void => {
      for (const byte of chunk) {
        if (byte === CTRL_C) {
          onSignal("SIGINT");
          return;
        }
        if (LINE_ENDS.includes(byte) || (byte === CTRL_D && bytes.length === 0)) {
          finish();
          resolve(fromBytes(Uint8Array.from(bytes)));
          return;
        }
        if (BACKSPACE.includes(byte))
          bytes = Array.from(toBytes([...fromBytes(Uint8Array.from(bytes))].slice(0, -1).join("")));
        else if (byte >= 32) bytes.push(byte);
      }
    };
    stdin.setRawMode(true);
    stdin.on("data", onData);
    stdin.resume();
    for (const name of ["SIGTERM", "SIGHUP"] as const) process.once(name, onSignal);
  });
}

/** Bundled beside us in dist/; else whatever the PATH knows by that name. */
function sibling(name: string): readonly string[] {
  const here = path.dirname(fileURLToPath(import.meta.url));
  const bundle = [here, path.dirname(here)]
    .flatMap((folder) => ["mjs", "cjs"].map((ending) => path.join(folder, `${name}.${ending}`)))
    .find((file) => fs.existsSync(file));
  return bundle === undefined ? [name] : [process.execPath, bundle];
}

async function runChild({ words, env, hasInput }: Child): Promise<ChildEnd> {
  const { spawn } = await import("node:child_process");
  const [command = "", ...args] = words;
  return new Promise((resolve) => {
    const child = spawn(command, args, {
      stdio: [hasInput ? "inherit" : "ignore", "inherit", "inherit"],
      env: { ...process.env, ...env },
    });
    child.on("error", (error: NodeJS.ErrnoException) => {
      const reason = command.includes("/")
        ? `fork/exec ${command}: ${error.code === "EACCES" ? "permission denied" : "no such file or directory"}`
        : `exec: "${command}": executable file not found in $PATH`;
      resolve({ kind: "notStarted", reason });
    });
    child.on("exit", (code, killedBy) => {
      resolve(killedBy === null ? { kind: "exited", code: code ?? 1 } : { kind: "killed", signal: killedBy });
    });
  });
}

function catchSignals(): AbortSignal {
  const controller = new AbortController();
  for (const name of ["SIGINT", "SIGTERM"] as const) {
    // The launcher has caught them so far. Ours comes first: without any, a signal would end the process meanwhile.
    const earlier = process.listeners(name);
    process.on(name, () => controller.abort(name));
    for (const listener of earlier) process.off(name, listener);
  }
  return controller.signal;
}

function timestamp(): string {
  const microseconds = BigInt(Math.round((performance.timeOrigin + performance.now()) * 1000));
  const whole = new Date(Number(microseconds / 1_000_000n) * 1000).toISOString().slice(0, 19);
  return `${whole}.${(microseconds % 1_000_000n).toString().padStart(6, "0")}Z`;
}
