// How txn and watch -i split a line into words.
import { unquoteInside } from "./quote.ts";

/** A double-quoted word, a single-quoted word, or anything without blanks that begins with neither quote. */
const WORD = /"(?:[^"\\]|\\.)*"|'[^']*'|[^'" \t\n\f\r][^ \t\n\f\r]*[^'" \t\n\f\r]?/g;

/** The words of a line, or undefined when a double-quoted one has a bad escape. */
export function splitWords(line: string): string[] | undefined {
  const words: string[] = [];
  for (const [word] of line.matchAll(WORD)) {
    if (word.startsWith("'")) {
      words.push(word.slice(1, -1));
    } else if (word.startsWith('"')) {
      const text = unquoteInside(word.slice(1, -1));
      if (text === undefined) return undefined;
      words.push(text);
    } else {
      words.push(word);
    }
  }
  return words;
}
