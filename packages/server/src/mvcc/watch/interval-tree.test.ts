import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { KeyString } from "../../lib/bytes.ts";
import { IntervalTree } from "./interval-tree.ts";

const point = fc.integer({ min: 0, max: 30 }).map((n) => String(n).padStart(2, "0") as KeyString);

describe("IntervalTree", () => {
  it("finds what going through all intervals would find, and stays in shape", () => {
    const step = fc.record({
      isAdd: fc.boolean(),
      start: point,
      end: fc.option(point, { nil: undefined }),
      member: fc.nat(3),
    });
    fc.assert(
      fc.property(
        fc.array(step, { maxLength: 120, size: "max" }),
        fc.array(point, { maxLength: 5 }),
        (steps, stabs) => {
          const tree = new IntervalTree<string>();
          const model = new Map<string, { start: KeyString; end: KeyString | undefined }>();
          for (const { isAdd, start, end, member } of steps) {
            const name = `${start}-${end}-${member}`;
            if (isAdd) {
              tree.add(start, end, name);
              model.set(name, { start, end });
            } else {
              tree.delete(start, end, name);
              model.delete(name);
            }
            tree.check();
          }
          for (const key of stabs) {
            const found: string[] = [];
            tree.stab(key, (name) => found.push(name));
            const expected = [...model].filter(
              ([, { start, end }]) => start <= key && (end === undefined || key < end),
            );
            expect(found.sort()).toEqual(expected.map(([name]) => name).sort());
          }
        },
      ),
    );
  });
});
