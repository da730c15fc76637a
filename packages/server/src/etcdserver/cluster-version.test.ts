import { describe, expect, it } from "vitest";
import { silentLogger } from "../lib/log.ts";
import type { Member } from "../membership/index.ts";
import { isDowngraded } from "./cluster-version.ts";

describe("isDowngraded()", () => {
  const ask = (own: string | undefined, others: readonly (string | undefined)[]) =>
    isDowngraded({
      cluster: {
        members: () => [1n, ...others.map((_other, i) => BigInt(i + 2))].map((id) => ({ id }) as Member),
        version: () => own,
      },
      memberId: 1n,
      targetVersion: "3.4.0",
      transport: {
        memberVersion: async (id) => {
          const cluster = others[Number(id) - 2];
          return cluster === undefined ? undefined : { server: "3.4.23", cluster };
        },
      },
      logger: silentLogger,
    });

  it.each([
    ["3.4.0", ["3.4.0", "3.4.0"], true],
    ["3.4.0", [], true],
    ["3.5.0", ["3.4.0"], false],
    ["3.4.0", ["3.4.0", "3.5.0"], false],
    ["3.4.0", ["not_decided"], false],
    ["3.4.0", [undefined], false],
    [undefined, [], false],
  ] as const)("own cluster version %s, others %j: %s", async (own, others, expected) => {
    expect(await ask(own, others)).toBe(expected);
  });
});
