import fs from "node:fs";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { docsText } from "./docs.ts";

test("docs/etcdctl.md is what the commands say", () => {
  const file = fileURLToPath(new URL("../../../../docs/etcdctl.md", import.meta.url));
  if (process.env.UPDATE_GOLDEN) fs.writeFileSync(file, docsText());
  expect(fs.readFileSync(file, "utf8")).toBe(docsText());
});
