/**
 * Golden scripts: our own in testdata/ (rewritten by UPDATE_GOLDEN=1), and those of the Go library, which lie beside the
 * repository when somebody has put them there; they are skipped when they are absent.
 */
import fs from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import {
  ConfChangeError,
  type ChangeContext,
  enterJoint,
  leaveJoint,
  type Membership,
  simpleChange,
} from "./confchange/changer.ts";
import { parseConfChanges } from "./confchange/conf-change.ts";
import { Inflights } from "./inflights.ts";
import { progressText } from "./progress.ts";
import { jointChart, jointCommittedIndex, jointIds, jointVoteResult } from "./quorum/joint.ts";
import { majorityChart, majorityCommittedIndex, majorityVoteResult, sortedIds } from "./quorum/majority.ts";
import { Interaction } from "./testing/interaction.ts";
import { argument, type Directive, runScript } from "./testing/script.ts";
import { configurationText, emptyConfiguration } from "./tracker.ts";

type Runner = (directive: Directive) => string;

function interactionRunner(): Runner {
  const interaction = new Interaction();
  return (directive) => interaction.run(directive);
}

function confChangeRunner(): Runner {
  let membership: Membership = { config: emptyConfiguration(), progress: new Map() };
  let lastIndex = 0;
  return (directive) => {
    const context: ChangeContext = {
      lastIndex: lastIndex++,
      newInflights: () => new Inflights(10, Number.POSITIVE_INFINITY),
    };
    try {
      const changes = parseConfChanges(directive.input);
      switch (directive.command) {
        case "simple":
          membership = simpleChange(membership, changes, context);
          break;
        case "enter-joint":
          membership = enterJoint(membership, argument(directive, "autoleave") === "true", changes, context);
          break;
        case "leave-joint":
          if (changes.length > 0) return "this command takes no input\n";
          membership = leaveJoint(membership);
          break;
        default:
          return "unknown command";
      }
    } catch (error) {
      if (!(error instanceof ConfChangeError)) throw error;
      return `${error.message}\n`;
    }
    const lines = [...membership.progress].map(([id, one]) => `${id}: ${progressText(one.status())}\n`);
    return `${configurationText(membership.config)}\n${lines.join("")}`;
  };
}

function quorumRunner(): Runner {
  return (directive) => {
    const list = (key: string) => directive.args.filter((arg) => arg.key === key).flatMap((arg) => arg.values);
    const ids = list("cfg")
      .filter((value) => value !== "")
      .map(BigInt);
    const joint = directive.args.some((arg) => arg.key === "cfgj");
    const jointIdsGiven = list("cfgj")
      .filter((value) => value !== "" && value !== "zero")
      .map(BigInt);
    const voters = { incoming: new Set(ids), outgoing: new Set(jointIdsGiven) };
    const order = [...new Set([...ids, ...jointIdsGiven])];
    const isVote = directive.command === "vote";
    const given = list(isVote ? "votes" : "idx").filter((value) => value !== "");
    if (given.length !== jointIds(voters).size) {
      const shown = given.map((value) => (isVote ? { y: 2, n: 1, _: 0 }[value] : value === "_" ? 0 : value));
      const map = sortedIds(order).map((id) => `${id}:{}`);
      return `error: mismatched input (explicit or _) for voters map[${map.join(" ")}]: [${shown.join(" ")}]`;
    }
    const known = order.map((id, i) => [id, given[i] as string] as const).filter(([, value]) => value !== "_");
    if (isVote) {
      const votes = new Map(known.map(([id, value]) => [id, value === "y"]));
      const turned = { incoming: voters.outgoing, outgoing: voters.incoming };
      expect(jointVoteResult(turned, votes)).toBe(jointVoteResult(voters, votes));
      if (!joint) expect(jointVoteResult(voters, votes)).toBe(majorityVoteResult(voters.incoming, votes));
      return { pending: "VotePending", lost: "VoteLost", won: "VoteWon" }[jointVoteResult(voters, votes)];
    }
    const indexes = new Map(known.map(([id, value]) => [id, Number(value)]));
    const ackedIndex = (id: bigint) => indexes.get(id);
    const committed = joint
      ? jointCommittedIndex(voters, ackedIndex)
      : majorityCommittedIndex(voters.incoming, ackedIndex);
    const chart = joint ? jointChart(voters, ackedIndex) : majorityChart(voters.incoming, ackedIndex);
    expect(jointCommittedIndex({ incoming: voters.outgoing, outgoing: voters.incoming }, ackedIndex)).toBe(
      jointCommittedIndex(voters, ackedIndex),
    );
    if (!joint) checkMajority(voters.incoming, indexes, committed);
    return `${chart}${committed === Number.POSITIVE_INFINITY ? "∞" : committed}\n`;
  };
}

/** What must hold of any majority, computed in another way. */
function checkMajority(voters: ReadonlySet<bigint>, indexes: ReadonlyMap<bigint, number>, committed: number): void {
  const counted = [...voters]
    .map((id) => indexes.get(id) ?? 0)
    .filter((index) => {
      const behind = [...voters].filter((id) => (indexes.get(id) ?? 0) >= index);
      return behind.length > voters.size / 2;
    });
  expect(voters.size === 0 ? Number.POSITIVE_INFINITY : Math.max(0, ...counted)).toBe(committed);
  const ackedIndex = (id: bigint) => indexes.get(id);
  expect(jointCommittedIndex({ incoming: voters, outgoing: voters }, ackedIndex)).toBe(committed);
  for (const id of voters) {
    const index = indexes.get(id) ?? 0;
    if (index === 0 || index >= committed) continue;
    // Who is behind anyway cannot lower it further.
    for (const lower of [index - 1, 0]) {
      expect(majorityCommittedIndex(voters, (one) => (one === id ? lower : ackedIndex(one)))).toBe(committed);
    }
  }
}

const SUITES: readonly (readonly [name: string, runner: () => Runner, directives: number])[] = [
  ["interaction", interactionRunner, 558],
  ["confchange", confChangeRunner, 58],
  ["quorum", quorumRunner, 127],
];

function scriptsIn(folder: string): string[] {
  if (!fs.existsSync(folder)) return [];
  return fs
    .readdirSync(folder)
    .filter((name) => name.endsWith(".txt"))
    .sort()
    .map((name) => path.join(folder, name));
}

function replay(file: string, runner: Runner, rewrite: boolean): number {
  const text = fs.readFileSync(file, "utf8");
  const { directives, differences, rewritten } = runScript(path.basename(file), text, runner);
  if (rewrite) {
    if (rewritten !== text) fs.writeFileSync(file, rewritten);
  } else {
    for (const { position, expected, actual } of differences) expect(actual, position).toBe(expected);
  }
  return directives;
}

/** `UPDATE_GOLDEN=1`: our scripts take over what comes out. */
const rewritesGoldens = process.env["UPDATE_GOLDEN"] === "1";
const here = path.dirname(fileURLToPath(import.meta.url));
const library = path.resolve(here, "../../../../../shared/raft-testdata");

describe("our golden scripts", () => {
  for (const [suite, newRunner] of SUITES) {
    for (const file of scriptsIn(path.join(here, "testdata", suite))) {
      test(`${suite}/${path.basename(file)}`, () => {
        expect(replay(file, newRunner(), rewritesGoldens)).toBeGreaterThan(0);
      });
    }
  }
});

describe.skipIf(!fs.existsSync(library))(`scripts of the Go library (in ${path.basename(library)})`, () => {
  for (const [suite, newRunner, directives] of SUITES) {
    test(`${suite}: all ${directives} directives`, () => {
      const counts = scriptsIn(path.join(library, suite)).map((file) => replay(file, newRunner(), false));
      expect(counts.reduce((sum, count) => sum + count, 0)).toBe(directives);
    });
  }
});
