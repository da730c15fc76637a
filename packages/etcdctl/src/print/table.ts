// ASCII tables with the layout that etcdctl 3.5 draws them in. cli-table3 does the drawing (columns as wide as their
// widest line, text measured as a terminal shows it); wrapping is done here, since its own breaks words.
import Table from "cli-table3";
import { type Colors, noColors } from "../color.ts";
import type { Format, PrintTarget } from "./answers.ts";
import { hashRows, healthRows, memberRows, type Rows, statusRows } from "./rows.ts";

const CELL_COLUMNS_MAX = 30;

const chars = {
  top: "-",
  "top-mid": "+",
  "top-left": "+",
  "top-right": "+",
  bottom: "-",
  "bottom-mid": "+",
  "bottom-left": "+",
  "bottom-right": "+",
  left: "|",
  "left-mid": "+",
  mid: "-",
  "mid-mid": "+",
  right: "|",
  "right-mid": "+",
  middle: "|",
};

/** The whole table, as text that ends with a newline. */
export function renderTable({ header, rows }: Rows, colors: Colors = noColors): string {
  // cli-table3 draws a rule below every row; only those above and below the header and at the end belong here, so the
  // lines of all rows go in as one row of tall cells. A wrapped column is as wide as the limit, whatever its lines are.
  const cells = rows.map((row) => row.map(wrapCell));
  const tall = header.map((_, column) =>
    cells.flatMap((row) => {
      const height = Math.max(...row.map((lines) => lines.length));
      const lines = row[column] ?? [];
      return [...lines, ...Array.from({ length: height - lines.length }, () => "")];
    }),
  );
  const widths = tall.map((lines, column) => {
    const isWrapped = cells.some((row) => (row[column]?.length ?? 0) > 1);
    return isWrapped && lines.every((line) => line.length <= CELL_COLUMNS_MAX) ? CELL_COLUMNS_MAX + 2 : null;
  });
  const table = new Table({ chars, colWidths: widths, style: { head: [], border: [] } });
  table.push(header.map((name) => ({ content: colors.name(name.toUpperCase()), hAlign: "center" as const })));
  if (rows.length > 0) table.push(tall.map((lines) => ({ content: lines.join("\n"), hAlign: "right" as const })));
  const text = `${table.toString()}\n`;
  return rows.length > 0 ? text : `${text}${text.slice(0, text.indexOf("\n") + 1)}`;
}

/**
 * The lines of a cell. Text of more than 30 columns is broken at blanks so that the lines are as even as can be (the sum
 * of the squared gaps at their ends is the least possible); a longer word widens its column.
 */
export function wrapCell(text: string): readonly string[] {
  if (text.length <= CELL_COLUMNS_MAX) return [text];
  const words = text.split(" ");
  const limit = Math.max(CELL_COLUMNS_MAX, ...words.map((word) => word.length));
  const width = (from: number, to: number): number => words.slice(from, to).join(" ").length;
  // best[i]: how the words from i on are broken best, and what the gaps cost.
  const best: { cost: number; next: number }[] = [];
  for (let i = words.length - 1; i >= 0; i--) {
    best[i] = { cost: Number.POSITIVE_INFINITY, next: words.length };
    if (width(i, words.length) <= limit) {
      best[i] = { cost: 0, next: words.length };
      continue;
    }
    for (let j = i + 1; j < words.length && width(i, j) <= limit; j++) {
      const cost = (limit - width(i, j)) ** 2 + (best[j]?.cost ?? 0);
      if (cost < (best[i]?.cost ?? 0)) best[i] = { cost, next: j };
    }
  }
  const lines: string[] = [];
  for (let i = 0; i < words.length; i = best[i]?.next ?? words.length) {
    lines.push(words.slice(i, best[i]?.next).join(" "));
  }
  return lines;
}

const drawn = (rows: Rows, target: PrintTarget): void => target.out(renderTable(rows, target.colors));

export const table: Format = {
  memberList: (target, answer) => drawn(memberRows(answer), target),
  endpointHealth: (target, answer) => drawn(healthRows(answer), target),
  endpointStatus: (target, answer) => drawn(statusRows(answer), target),
  endpointHash: (target, answer) => drawn(hashRows(answer), target),
};
