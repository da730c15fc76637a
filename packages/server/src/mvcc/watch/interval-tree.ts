/**
 * Intervals of keys, each with a set of members, and the question "which intervals hold this key?" in O(log n + answers).
 * An AVL tree ordered by (start, end); each node knows the largest end below it. Keys are KeyStrings: one UTF-16 unit a
 * byte, so `<` is byte order.
 */
import type { KeyString } from "../../lib/bytes.ts";

/** `undefined` = no end. */
type End = KeyString | undefined;

interface Node<T> {
  readonly start: KeyString;
  readonly end: End;
  readonly members: Set<T>;
  left: Node<T> | undefined;
  right: Node<T> | undefined;
  height: number;
  maxEnd: End;
}

const endBefore = (a: End, b: End): boolean => a !== undefined && (b === undefined || a < b);

function compareInterval<T>(start: KeyString, end: End, node: Node<T>): number {
  if (start !== node.start) return start < node.start ? -1 : 1;
  if (end === node.end) return 0;
  return endBefore(end, node.end) ? -1 : 1;
}

const heightOf = (node: Node<unknown> | undefined): number => node?.height ?? 0;

function update<T>(node: Node<T>): void {
  node.height = 1 + Math.max(heightOf(node.left), heightOf(node.right));
  let maxEnd = node.end;
  if (node.left && endBefore(maxEnd, node.left.maxEnd)) maxEnd = node.left.maxEnd;
  if (node.right && endBefore(maxEnd, node.right.maxEnd)) maxEnd = node.right.maxEnd;
  node.maxEnd = maxEnd;
}

function rotateRight<T>(node: Node<T>): Node<T> {
  const top = node.left as Node<T>;
  node.left = top.right;
  top.right = node;
  update(node);
  update(top);
  return top;
}

function rotateLeft<T>(node: Node<T>): Node<T> {
  const top = node.right as Node<T>;
  node.right = top.left;
  top.left = node;
  update(node);
  update(top);
  return top;
}

function balance<T>(node: Node<T>): Node<T> {
  update(node);
  const lean = heightOf(node.left) - heightOf(node.right);
  if (lean > 1) {
    const left = node.left as Node<T>;
    if (heightOf(left.left) < heightOf(left.right)) node.left = rotateLeft(left);
    return rotateRight(node);
  }
  if (lean < -1) {
    const right = node.right as Node<T>;
    if (heightOf(right.right) < heightOf(right.left)) node.right = rotateRight(right);
    return rotateLeft(node);
  }
  return node;
}

export class IntervalTree<T> {
  #root: Node<T> | undefined;

  add(start: KeyString, end: End, member: T): void {
    this.#root = this.#add(this.#root, start, end, member);
  }

  #add(node: Node<T> | undefined, start: KeyString, end: End, member: T): Node<T> {
    if (!node) {
      return { start, end, members: new Set([member]), left: undefined, right: undefined, height: 1, maxEnd: end };
    }
    const order = compareInterval(start, end, node);
    if (order === 0) {
      node.members.add(member);
      return node;
    }
    if (order < 0) node.left = this.#add(node.left, start, end, member);
    else node.right = this.#add(node.right, start, end, member);
    return balance(node);
  }

  /** Harmless when the member is not there. */
  delete(start: KeyString, end: End, member: T): void {
    this.#root = this.#delete(this.#root, start, end, member);
  }

  #delete(node: Node<T> | undefined, start: KeyString, end: End, member: T): Node<T> | undefined {
    if (!node) return undefined;
    const order = compareInterval(start, end, node);
    if (order < 0) node.left = this.#delete(node.left, start, end, member);
    else if (order > 0) node.right = this.#delete(node.right, start, end, member);
    else {
      node.members.delete(member);
      if (node.members.size > 0) return node;
      return this.#without(node);
    }
    return balance(node);
  }

  /** What stands in the place of a node that goes: the next one in order, out of its right side. */
  #without(node: Node<T>): Node<T> | undefined {
    if (!node.left) return node.right;
    if (!node.right) return node.left;
    let next = node.right;
    while (next.left) next = next.left;
    const right = this.#withoutFirst(node.right);
    next.left = node.left;
    next.right = right;
    return balance(next);
  }

  #withoutFirst(node: Node<T>): Node<T> | undefined {
    if (!node.left) return node.right;
    node.left = this.#withoutFirst(node.left);
    return balance(node);
  }

  /** Calls `visit` for each member of each interval that holds `key`. The tree must not be changed meanwhile. */
  stab(key: KeyString, visit: (member: T) => void): void {
    if (this.#root) this.#stab(this.#root, key, visit);
  }

  #stab(node: Node<T>, key: KeyString, visit: (member: T) => void): void {
    if (node.maxEnd !== undefined && node.maxEnd <= key) return;
    if (node.left) this.#stab(node.left, key, visit);
    if (key < node.start) return;
    if (node.end === undefined || key < node.end) node.members.forEach(visit);
    if (node.right) this.#stab(node.right, key, visit);
  }

  /** For tests: throws when the tree is out of shape. */
  check(): void {
    const walk = (node: Node<T> | undefined): void => {
      if (!node) return;
      walk(node.left);
      walk(node.right);
      const { height, maxEnd } = node;
      update(node);
      if (node.height !== height || node.maxEnd !== maxEnd) throw new Error("stale node");
      if (Math.abs(heightOf(node.left) - heightOf(node.right)) > 1) throw new Error("out of balance");
    };
    walk(this.#root);
  }
}
