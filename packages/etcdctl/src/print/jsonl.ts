// One JSON object a line for each thing in an answer: a key, an event, a member, an endpoint. Things look as in the json
// format. An addition of ours.
import { encodeJson, type Json } from "../go/json.ts";
import type { Answers, Format, PrintTarget } from "./answers.ts";
import { eventJson, jsonOf, kvJson, memberJson } from "./json.ts";

const line = (target: PrintTarget, value: Json): void => target.out(`${encodeJson(value)}\n`);

const whole = <K extends keyof Answers>(kind: K) => [
  kind,
  (target: PrintTarget, answer: Answers[K]) => line(target, jsonOf[kind](answer, target.hex)),
];

const eachOf = <K extends "endpointHealth" | "endpointStatus" | "endpointHash">(kind: K) => [
  kind,
  (target: PrintTarget, answer: Answers[K]) => {
    for (const value of jsonOf[kind](answer, false) as readonly Json[]) line(target, value);
  },
];

export const jsonl: Format = {
  ...(Object.fromEntries((Object.keys(jsonOf) as (keyof Answers)[]).map(whole)) as Format),
  ...(Object.fromEntries((["endpointHealth", "endpointStatus", "endpointHash"] as const).map(eachOf)) as Format),
  get(target, { kvs }) {
    for (const kv of kvs) line(target, kvJson(kv));
  },
  pagedRange: {
    keys(target, kvs) {
      for (const kv of kvs) line(target, kvJson(kv));
    },
  },
  watch(target, { events }) {
    for (const event of events ?? []) line(target, eventJson(event));
  },
  memberList(target, { members }) {
    for (const member of members) line(target, memberJson(member));
  },
};
