/** Invariants. A broken one means that memory can no longer be trusted, so the process must end, not answer. */

export class InvariantError extends Error {
  override readonly name = "InvariantError";
}

/** Throws {@link InvariantError} unless `condition` holds. `message` may be a function when building it costs. */
export function assert(condition: unknown, message: string | (() => string)): asserts condition {
  if (!condition) throw new InvariantError(typeof message === "string" ? message : message());
}

/** Closes a switch over a union: a new member no longer compiles until it has a case. */
export function assertNever(value: never, what = "case"): never {
  throw new InvariantError(`unexpected ${what}: ${String(value)}`);
}

/** Costly checks run in tests and under ETCD_VERIFY=all. */
export const verifyAll: boolean = process.env["ETCD_VERIFY"] === "all";
