// YAML for people: the fields of the json format, with keys and values as text where they are text (else as !!binary). Each
// answer is a document of its own. An addition of ours.
import { Document } from "yaml";
import { fromBytes } from "../go/bytes.ts";
import { isList, type Json } from "../go/json.ts";
import type { Answers, Format, PrintTarget } from "./answers.ts";
import { jsonOf } from "./json.ts";

/** What the yaml library takes: text for bytes that are readable. */
function readable(value: Json): unknown {
  if (value instanceof Uint8Array) {
    const text = fromBytes(value);
    // The library writes all of a view's buffer, so what it gets is a copy.
    // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what makes bytes unreadable
    return /[\udc80-\udcff\0-\x08\x0b\x0c\x0e-\x1f\x7f]/.test(text) ? Uint8Array.from(value) : text;
  }
  if (value === null || typeof value !== "object") return value;
  if (isList(value)) return value.map(readable);
  return Object.fromEntries(
    Object.entries(value)
      .filter(([, field]) => field !== undefined)
      .map(([name, field]) => [name, readable(field as Json)]),
  );
}

const document = <K extends keyof Answers>(kind: K) => [
  kind,
  (target: PrintTarget, answer: Answers[K]) => {
    const text = new Document(readable(jsonOf[kind](answer, target.hex)), { customTags: ["binary"] }).toString({
      lineWidth: 0,
    });
    target.out(kind === "watch" ? `---\n${text}` : text);
  },
];

export const yaml = Object.fromEntries((Object.keys(jsonOf) as (keyof Answers)[]).map(document)) as Format;
