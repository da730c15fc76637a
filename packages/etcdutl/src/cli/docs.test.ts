import fs from "node:fs";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { docsText } from "./docs.ts";

test("docs/etcdutl.md is what the commands say", () => {
  const file = fileURLToPath(new URL("../../../../docs/etcdutl.md", import.meta.url));
  if (process.env["UPDATE_GOLDEN"]) fs.writeFileSync(file, docsText());
  expect(fs.readFileSync(file, "utf8")).toBe(docsText());
});
