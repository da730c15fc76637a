/** One answer in the format that `-w` asks for. */
import type { CommandContext } from "./context.ts";
import { BAD_FEATURE, ExitError } from "./exit.ts";

export interface Answer {
  readonly simple: string;
  readonly json: Readonly<Record<string, unknown>>;
  /** `"Name" : value` lines. */
  readonly fields: readonly (readonly [name: string, value: number | string])[];
  readonly table: { readonly header: readonly string[]; readonly row: readonly string[] };
}

const FORMATS = new Set(["fields", "json", "simple", "table"]);

/** Refuses formats that etcdutl does not have, before any work is done. */
export function requireFormat({ flags }: CommandContext): void {
  const format = flags.string("write-out");
  if (FORMATS.has(format)) return;
  throw new ExitError(
    BAD_FEATURE,
    format === "protobuf" ? "protobuf not supported as output format" : "unsupported output format",
  );
}

export function printAnswer({ flags, io }: CommandContext, answer: Answer): void {
  switch (flags.string("write-out")) {
    case "json":
      io.out.write(`${JSON.stringify(answer.json)}\n`);
      return;
    case "fields":
      for (const [name, value] of answer.fields) io.out.write(`"${name}" : ${value}\n`);
      return;
    case "table":
      io.out.write(tableText(answer.table.header, answer.table.row));
      return;
    default:
      io.out.write(`${answer.simple}\n`);
  }
}

/** Headings in the middle, values to the right, as the Go tool's table library has it for a single row of numbers. */
function tableText(header: readonly string[], row: readonly string[]): string {
  const widths = header.map((text, i) => Math.max(text.length, (row[i] ?? "").length));
  const rule = `+${widths.map((width) => "-".repeat(width + 2)).join("+")}+\n`;
  const middle = (text: string, width: number) => {
    const left = Math.floor((width - text.length) / 2);
    return " ".repeat(left) + text + " ".repeat(width - text.length - left);
  };
  const cells = (texts: readonly string[], place: (text: string, width: number) => string) =>
    `|${widths.map((width, i) => ` ${place(texts[i] ?? "", width)} `).join("|")}|\n`;
  return `${rule}${cells(header, middle)}${rule}${cells(row, (text, width) => text.padStart(width))}${rule}`;
}
