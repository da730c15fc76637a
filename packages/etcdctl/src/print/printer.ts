// Chooses a format by name and prints answers with it.
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
};

export interface PrinterOptions {
  readonly hex: boolean;
  readonly out: Output;
  readonly err: Output;
}

export interface Printer {
  readonly format: string;
  /** @throws ExitError when the format does not know this kind of answer */
  print<K extends AnswerKind>(kind: K, answer: Answers[K], options?: { readonly valueOnly?: boolean }): void;
}

/** @throws ExitError for a format that there is not */
export async function openPrinter(name: string, { hex, out, err }: PrinterOptions): Promise<Printer> {
  const open = Object.hasOwn(formats, name) ? formats[name] : undefined;
  if (!open) throw new ExitError(BAD_FEATURE, "unsupported output format");
  const format = await open();
  return {
    format: name,
    print(kind, answer, options = {}) {
      const print = format[kind];
      if (!print) throw new ExitError(BAD_FEATURE, `${name} not supported as output format`);
      const pieces: (string | Uint8Array)[] = [];
      let text = "";
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
        complain: (line) => {
          flush();
          err.write(`${line}\n`);
        },
        hex,
        valueOnly: options.valueOnly ?? false,
      };
      const flush = (): void => {
        if (text !== "") pieces.push(text);
        text = "";
        if (pieces.length > 0) out.write(joinPieces(pieces.splice(0)));
      };
      try {
        print(target, answer);
      } finally {
        flush();
      }
    },
  };
}

function joinPieces(pieces: readonly (string | Uint8Array)[]): string | Uint8Array {
  if (pieces.every((piece) => typeof piece === "string")) return pieces.join("");
  return Buffer.concat(pieces.map((piece) => (typeof piece === "string" ? Buffer.from(piece, "utf8") : piece)));
}
