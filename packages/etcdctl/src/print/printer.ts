// Chooses a format by name and prints answers with it.
import type { RangeResponse } from "@etcd-ts/client/wire";
import { type Colors, noColors } from "../color.ts";
import { toBytes } from "../go/bytes.ts";
import { BAD_FEATURE, ExitError } from "../exit.ts";
import type { Output } from "../io.ts";
import type { AnswerKind, Answers, Format, PrintTarget } from "./answers.ts";
import { simple } from "./simple.ts";

const formats: Readonly<Record<string, () => Format | Promise<Format>>> = {
  simple: () => simple,
  json: async () => (await import("./json.ts")).json,
  fields: async () => (await import("./fields.ts")).fields,
  protobuf: async () => (await import("./protobuf.ts")).protobuf,
  table: async () => (await import("./table.ts")).table,
  jsonl: async () => (await import("./jsonl.ts")).jsonl,
  yaml: async () => (await import("./yaml.ts")).yaml,
};

export interface PrinterOptions {
  readonly hex: boolean;
  readonly out: Output;
  readonly err: Output;
  readonly colors?: Colors;
}

export interface Printer {
  readonly format: string;
  /** @throws ExitError when the format does not know this kind of answer */
  print<K extends AnswerKind>(kind: K, answer: Answers[K], options?: PrintOptions): void;
  /**
   * Prints a range that comes page by page, as the pages come; together they read as `print("get", ...)` of the whole.
   * Undefined when the format needs the whole.
   */
  readonly pagedRange: ((options?: PrintOptions) => RangePages) | undefined;
}

export interface PrintOptions {
  /** Values only: simple. */
  readonly valueOnly?: boolean;
}

export interface RangePages {
  page(page: RangeResponse): void;
  end(total: { readonly more: boolean; readonly count: number }): void;
}

/** @throws ExitError for a format that there is not */
export async function openPrinter(
  name: string,
  { hex, out, err, colors = noColors }: PrinterOptions,
): Promise<Printer> {
  const open = Object.hasOwn(formats, name) ? formats[name] : undefined;
  if (!open) throw new ExitError(BAD_FEATURE, "unsupported output format");
  const format = await open();
  const collect = (write: (target: PrintTarget) => void, { valueOnly = false }: PrintOptions = {}): void => {
    const pieces: (string | Uint8Array)[] = [];
    let text = "";
    const flush = (): void => {
      if (text !== "") pieces.push(text);
      text = "";
      if (pieces.length > 0) out.write(joinPieces(pieces.splice(0)));
    };
    const target: PrintTarget = {
      // Small pieces are joined, so that an answer of many keys is few writes.
      out(piece) {
        if (typeof piece === "string") text += piece;
        else {
          if (text !== "") pieces.push(text);
          text = "";
          pieces.push(piece);
        }
      },
      complain(line) {
        flush();
        err.write(`${line}\n`);
      },
      hex,
      valueOnly,
      colors,
    };
    try {
      write(target);
    } finally {
      flush();
    }
  };
  const { pagedRange } = format;
  return {
    format: name,
    print<K extends AnswerKind>(kind: K, answer: Answers[K], options?: PrintOptions) {
      const print = format[kind] as ((target: PrintTarget, answer: Answers[K]) => void) | undefined;
      if (!print) throw new ExitError(BAD_FEATURE, `${name} not supported as output format`);
      collect((target) => print(target, answer), options);
    },
    pagedRange:
      pagedRange &&
      ((options) => {
        let isFirstPage = true;
        let hasKeys = false;
        return {
          page(page) {
            collect((target) => {
              if (isFirstPage) pagedRange.first?.(target, page);
              pagedRange.keys(target, page.kvs, !hasKeys);
            }, options);
            isFirstPage = false;
            hasKeys ||= page.kvs.length > 0;
          },
          end(total) {
            collect((target) => pagedRange.last?.(target, total, hasKeys), options);
          },
        };
      }),
  };
}

function joinPieces(pieces: readonly (string | Uint8Array)[]): string | Uint8Array {
  if (pieces.every((piece) => typeof piece === "string")) return pieces.join("");
  return Buffer.concat(pieces.map((piece) => (typeof piece === "string" ? toBytes(piece) : piece)));
}
