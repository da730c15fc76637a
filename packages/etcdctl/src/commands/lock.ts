import { Mutex, Session } from "@etcd-ts/client/concurrency";
import { KV } from "@etcd-ts/client/wire";
import type { CommandContext } from "../context.ts";
import { badArgs, ERROR, ExitError } from "../exit.ts";
import { fromBytes, toBytes } from "../go/bytes.ts";
import { childProblem } from "./watch.ts";

const KILLED = 255;

/**
 * `lock NAME [COMMAND]`: holds the lock while the command runs, or without one until a signal. The session's lease is left to run
 * out, as etcd's tool leaves it.
 */
export async function runLock(context: CommandContext, args: readonly string[]): Promise<void> {
  const [name, ...command] = args;
  if (name === undefined) throw badArgs("lock takes a lock name argument and an optional command to execute");
  const { flags, io } = context;
  await using connected = await context.connectFully();
  const { client, printer } = connected;
  const ttl = flags.number("ttl");
  const session = await Session.open(client, ttl > 0 ? { ttlSeconds: ttl } : {});
  const mutex = new Mutex(session, toBytes(name));
  const signal = io.catchSignals();
  await mutex.lock({ signal }).catch((error: unknown) => {
    throw signal.aborted ? new ExitError(ERROR, "context canceled") : error;
  });
  if (command.length > 0) {
    const env = {
      ETCD_LOCK_KEY: fromBytes(mutex.key ?? new Uint8Array(0)),
      ETCD_LOCK_REV: String(mutex.header?.revision ?? 0),
    };
    // A signal leaves the command alone, as with etcd's tool: what holds the lock says itself when it has done. On a
    // terminal ctrl-C reaches both.
    const end = await io.run({ words: command, env });
    await mutex.unlock();
    const problem = childProblem(end);
    if (problem === undefined) return;
    throw new ExitError(end.kind === "exited" ? end.code : end.kind === "killed" ? KILLED : ERROR, problem);
  }
  const held = await client.call(KV.methods.range, { key: mutex.key ?? new Uint8Array(0) }, { signal });
  if (held.kvs.length === 0) throw new ExitError(ERROR, "lock lost on init");
  printer.print("get", held);
  await Promise.race([session.lost, aborted(signal)]);
  if (!signal.aborted) throw new ExitError(ERROR, "session expired");
  await mutex.unlock();
}

/** Resolves when the signal is aborted. */
export const aborted = (signal: AbortSignal): Promise<void> =>
  new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", () => resolve(), { once: true });
  });
