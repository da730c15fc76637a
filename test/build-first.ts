/** Worker threads and end-to-end tests run the bundles in dist/, so they are brought up to date before any test. */
import { spawnSync } from "node:child_process";
import path from "node:path";
import { fileURLToPath } from "node:url";

export default function setup(): void {
  // For work on a room that needs no bundle: its tests start a second sooner.
  if (process.env["ETCD_TS_SKIP_BUILD"] === "1") return;
  const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
  const { status } = spawnSync(process.execPath, [path.join(root, "scripts", "ensure.mjs")], { stdio: "inherit" });
  if (status !== 0) throw new Error("the build failed");
}
