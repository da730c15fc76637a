import { describe, expect, test } from "vitest";
import { type Directive, runScript } from "./script.ts";

function directivesOf(text: string): Directive[] {
  const found: Directive[] = [];
  runScript("x.txt", text, (directive) => {
    found.push(directive);
    return directive.expected;
  });
  return found;
}

describe("runScript()", () => {
  test("reads words, values, lists with nested parentheses, input and joined lines", () => {
    const [first, second] = directivesOf(
      "# comment\n\ncmd 1 a=b c= d=(x, y,(z w)) \\\n  e\ninput one\n input two\n----\nout\n\nother\n----\n",
    );
    expect(first).toMatchObject({
      position: "x.txt:3",
      command: "cmd",
      args: [
        { key: "1", values: [] },
        { key: "a", values: ["b"] },
        { key: "c", values: [""] },
        { key: "d", values: ["x", "y", "(z w)"] },
        { key: "e", values: [] },
      ],
      input: "input one\n input two",
      expected: "out\n",
    });
    expect(second).toMatchObject({ position: "x.txt:10", command: "other", expected: "" });
  });

  test("names what differs and gives the script back with the actual output in place", () => {
    const text = "# keep\na\n----\nsame\n\n# and this\nb\n----\nold\n";
    const { directives, differences, rewritten } = runScript("x.txt", text, ({ command }) =>
      command === "a" ? "same" : "new\n\nwith a blank line",
    );
    expect(directives).toBe(2);
    expect(differences).toEqual([{ position: "x.txt:7", expected: "old\n", actual: "new\n\nwith a blank line\n" }]);
    expect(rewritten).toBe(
      "# keep\na\n----\nsame\n\n# and this\nb\n----\n----\nnew\n\nwith a blank line\n----\n----\n",
    );
    expect(directivesOf(rewritten)[1]?.expected).toBe("new\n\nwith a blank line\n");
  });

  test("leaves a script alone that is as it should be", () => {
    const text = "a\n----\nsame\n\n# the end\n";
    expect(runScript("x.txt", text, () => "same").rewritten).toBe(text);
  });

  test("refuses a directive without its line of dashes", () => {
    expect(() => directivesOf("a\nb\n")).toThrow("x.txt:1: no ---- after a");
  });
});
