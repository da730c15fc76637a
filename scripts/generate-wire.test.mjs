import fs from "node:fs";
import path from "node:path";
import { expect, it } from "vitest";
import { root } from "./ensure.mjs";
import { generate } from "./generate-wire.mjs";

it.each(generate().map(({ file, text }) => [file, text]))("%s is what proto/ says", (file, text) => {
  expect(fs.readFileSync(path.join(root, file), "utf8")).toBe(text);
});
