/**
 * Whether a history of concurrent operations could have come from a store that does one thing at a time: Wing and Gong's
 * search, with Lowe's memory of states that led nowhere. Clients note when they called, when they were answered, and with
 * what; the search looks for an order that agrees with all answers and in which nothing that had ended before
 * something else began comes after it.
 *
 * ```
 *   call ----- return          any place in between may be the moment when it took effect
 *   call ------------------->  no answer: it took effect at any time after the call, or never
 * ```
 *
 * The model is etcd's: a store of keys with one revision for all, where an operation is a transaction of reads, puts and
 * deletions behind comparisons. Answers carry the revision, so most steps of the search have one way to go; what has no
 * answer may branch, and what {@link settleUnanswered} has found in the history of a watch does not.
 */

export interface StoredValue {
  readonly value: string;
  readonly modRevision: number;
}

export type Step =
  | { readonly kind: "get"; readonly key: string }
  | { readonly kind: "put"; readonly key: string; readonly value: string }
  | { readonly kind: "delete"; readonly key: string };

/** All steps are done when all conditions hold, otherwise those of `otherwise`. A condition with 0 asks for absence. */
export interface Input {
  readonly conditions: readonly { readonly key: string; readonly modRevision: number }[];
  readonly steps: readonly Step[];
  readonly otherwise: readonly Step[];
}

/** What one step told: a get what it found, a put nothing, a deletion how many keys went. */
export type StepResult =
  | { readonly kind: "got"; readonly found: StoredValue | undefined }
  | { readonly kind: "put" }
  | { readonly kind: "deleted"; readonly count: number };

export interface Answer {
  readonly revision: number;
  readonly succeeded: boolean;
  readonly results: readonly StepResult[];
}

export interface Operation {
  readonly client: number;
  readonly callMs: number;
  /** Infinity when there was no answer. */
  readonly returnMs: number;
  readonly input: Input;
  /** Undefined when there was none. */
  readonly answer: Answer | undefined;
  /** The revision at which an unanswered write took effect, where that is known from elsewhere. */
  readonly knownRevision?: number | undefined;
}

/** The store at one moment; never changed, so that the search can go back. */
interface State {
  readonly revision: number;
  readonly keys: ReadonlyMap<string, StoredValue>;
}

const isAnswered = ({ answer }: Operation): boolean => answer !== undefined;
const isWrite = (step: Step): boolean => step.kind !== "get";

/** The state and the answer after the operation. */
function perform(state: State, input: Input): { readonly next: State; readonly answer: Answer } {
  const succeeded = input.conditions.every(
    ({ key, modRevision }) => (state.keys.get(key)?.modRevision ?? 0) === modRevision,
  );
  const steps = succeeded ? input.steps : input.otherwise;
  const results: StepResult[] = [];
  let keys = state.keys as Map<string, StoredValue>;
  const revision = state.revision + 1;
  const change = (): Map<string, StoredValue> => {
    if (keys === state.keys) keys = new Map(keys);
    return keys;
  };
  for (const step of steps) {
    switch (step.kind) {
      case "get":
        results.push({ kind: "got", found: keys.get(step.key) });
        break;
      case "put":
        change().set(step.key, { value: step.value, modRevision: revision });
        results.push({ kind: "put" });
        break;
      case "delete":
        results.push({ kind: "deleted", count: keys.has(step.key) ? 1 : 0 });
        if (keys.has(step.key)) change().delete(step.key);
    }
  }
  const next = keys === state.keys ? state : { revision, keys };
  return { next, answer: { revision: next.revision, succeeded, results } };
}

function isSameResult(a: StepResult, b: StepResult): boolean {
  if (a.kind === "got" && b.kind === "got") {
    return a.found?.value === b.found?.value && a.found?.modRevision === b.found?.modRevision;
  }
  if (a.kind === "deleted" && b.kind === "deleted") return a.count === b.count;
  return a.kind === b.kind;
}

function agrees(operation: Operation, answer: Answer, isChange: boolean): boolean {
  const told = operation.answer;
  // Without an answer and without an effect it may as well never have happened: one way to go less.
  if (!told) return isChange && (operation.knownRevision ?? answer.revision) === answer.revision;
  return (
    told.revision === answer.revision &&
    told.succeeded === answer.succeeded &&
    told.results.length === answer.results.length &&
    told.results.every((result, i) => isSameResult(result, answer.results[i] as StepResult))
  );
}

/** Doubly linked calls and returns, in the order of time, from which the search takes operations out and puts them back. */
interface Mark {
  readonly operation: number;
  readonly isCall: boolean;
  partner: Mark | undefined;
  before: Mark | undefined;
  after: Mark | undefined;
}

function chain(operations: readonly Operation[]): Mark {
  const times: { atMs: number; operation: number; isCall: boolean }[] = [];
  operations.forEach(({ callMs, returnMs }, operation) => {
    times.push({ atMs: callMs, operation, isCall: true }, { atMs: returnMs, operation, isCall: false });
  });
  // Of what happened at the same moment the calls come first: then they may still have been concurrent.
  times.sort((a, b) => (a.atMs === b.atMs ? Number(b.isCall) - Number(a.isCall) : a.atMs < b.atMs ? -1 : 1));
  const head: Mark = { operation: -1, isCall: false, partner: undefined, before: undefined, after: undefined };
  const calls = new Map<number, Mark>();
  let last = head;
  for (const { operation, isCall } of times) {
    const mark: Mark = { operation, isCall, partner: undefined, before: last, after: undefined };
    last.after = mark;
    last = mark;
    if (isCall) {
      calls.set(operation, mark);
    } else {
      const call = calls.get(operation) as Mark;
      call.partner = mark;
      mark.partner = call;
    }
  }
  return head;
}

function unlink(mark: Mark): void {
  if (mark.before) mark.before.after = mark.after;
  if (mark.after) mark.after.before = mark.before;
}

function relink(mark: Mark): void {
  if (mark.before) mark.before.after = mark;
  if (mark.after) mark.after.before = mark;
}

export type Verdict =
  | { readonly kind: "linearizable"; readonly steps: number }
  /** The operation that no order allows, in the longest order that was found. */
  | { readonly kind: "violated"; readonly placed: number; readonly operation: Operation; readonly reason: string }
  | { readonly kind: "undecided"; readonly steps: number };

export interface CheckOptions {
  /** Steps of the search before it gives up. */
  readonly stepsMax?: number | undefined;
  readonly initial?: { readonly revision: number } | undefined;
}

const STEPS_MAX = 20_000_000;

export function checkLinearizable(operations: readonly Operation[], options: CheckOptions = {}): Verdict {
  const { stepsMax = STEPS_MAX } = options;
  const head = chain(operations);
  let state: State = { revision: options.initial?.revision ?? 1, keys: new Map() };
  const hash = new SetHash(operations.length);
  const seen = new Map<string, State[]>();
  const stack: { readonly mark: Mark; readonly state: State }[] = [];
  let steps = 0;
  let best = { placed: -1, mark: undefined as Mark | undefined, state };
  let at = head.after;
  // What is left over when only unanswered operations remain may simply never have happened.
  let open = operations.filter(isAnswered).length;
  while (open > 0) {
    if (++steps > stepsMax) return { kind: "undecided", steps };
    if (at?.isCall) {
      const operation = operations[at.operation] as Operation;
      const { next, answer } = perform(state, operation.input);
      if (agrees(operation, answer, next !== state)) {
        hash.toggle(at.operation);
        const isNew = remember(seen, hash.key(), next);
        if (isNew) {
          stack.push({ mark: at, state });
          state = next;
          if (isAnswered(operation)) open--;
          unlink(at);
          if (at.partner) unlink(at.partner);
          at = head.after;
          continue;
        }
        hash.toggle(at.operation);
      }
      at = at.after;
      continue;
    }
    // A return whose operation has no place yet: nothing further may come before it. Back.
    if (stack.length > best.placed) best = { placed: stack.length, mark: at, state };
    const last = stack.pop();
    if (!last) {
      const operation = operations[best.mark?.operation ?? 0] as Operation;
      return { kind: "violated", placed: best.placed, operation, reason: explain(best.state, operation) };
    }
    const { mark } = last;
    state = last.state;
    hash.toggle(mark.operation);
    if (isAnswered(operations[mark.operation] as Operation)) open++;
    if (mark.partner) relink(mark.partner);
    relink(mark);
    at = mark.after;
  }
  return { kind: "linearizable", steps };
}

function explain(state: State, { input, answer, client }: Operation): string {
  const { answer: wanted } = perform(state, input);
  return `client ${client}: ${JSON.stringify(input)} was answered ${JSON.stringify(answer)}, not ${JSON.stringify(wanted)}`;
}

/** A set of operations as 96 bits, changed one operation at a time: the sum, without carries, of a random number each. */
class SetHash {
  readonly #numbers: Uint32Array;
  #a = 0;
  #b = 0;
  #c = 0;

  constructor(size: number) {
    this.#numbers = new Uint32Array(3 * size);
    // Any numbers that have nothing to do with one another; always the same ones.
    let x = 0x9e3779b9;
    for (let i = 0; i < this.#numbers.length; i++) {
      x = Math.imul(x ^ (x >>> 16), 0x21f0aaad);
      x = Math.imul(x ^ (x >>> 15), 0x735a2d97);
      x = (x ^ (x >>> 15)) + 0x9e3779b9 + i;
      this.#numbers[i] = x;
    }
  }

  toggle(member: number): void {
    this.#a ^= this.#numbers[3 * member] as number;
    this.#b ^= this.#numbers[3 * member + 1] as number;
    this.#c ^= this.#numbers[3 * member + 2] as number;
  }

  key(): string {
    return `${this.#a},${this.#b},${this.#c}`;
  }
}

/** False when the same operations have led to the same state before. */
function remember(seen: Map<string, State[]>, key: string, state: State): boolean {
  const states = seen.get(key);
  if (!states) {
    seen.set(key, [state]);
    return true;
  }
  if (states.some((other) => isSameState(other, state))) return false;
  states.push(state);
  return true;
}

function isSameState(a: State, b: State): boolean {
  if (a === b) return true;
  if (a.revision !== b.revision || a.keys.size !== b.keys.size) return false;
  for (const [key, { value, modRevision }] of a.keys) {
    const other = b.keys.get(key);
    if (other?.value !== value || other.modRevision !== modRevision) return false;
  }
  return true;
}

/** One change, as a watch tells of it; `value` undefined for a deletion. */
export interface Change {
  readonly revision: number;
  readonly key: string;
  readonly value: string | undefined;
}

/**
 * Finds out about operations without an answer from everything that ever changed: each value is put once, so a put that
 * is not among the changes did not happen (and is left out), and one that is has its revision. Deletions stay open:
 * of several without an answer it cannot be told which one it was. Reads without an answer say nothing.
 */
export function settleUnanswered(operations: readonly Operation[], changes: readonly Change[]): Operation[] {
  const revisionOf = new Map<string, number>();
  for (const { key, value, revision } of changes) if (value !== undefined) revisionOf.set(`${key}\n${value}`, revision);
  return operations.flatMap((operation) => {
    if (operation.answer) return [operation];
    const steps = [...operation.input.steps, ...operation.input.otherwise].filter(isWrite);
    if (steps.length === 0) return [];
    const puts = steps.flatMap((step) => (step.kind === "put" ? [`${step.key}\n${step.value}`] : []));
    const known = puts.map((put) => revisionOf.get(put)).find((revision) => revision !== undefined);
    if (known !== undefined) return [{ ...operation, returnMs: Number.POSITIVE_INFINITY, knownRevision: known }];
    return puts.length === steps.length ? [] : [{ ...operation, returnMs: Number.POSITIVE_INFINITY }];
  });
}
