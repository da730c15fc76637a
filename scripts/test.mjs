// `npm test`: installs and builds when needed, then format, lint, layers, types, unit and e2e tests; ends with the
// plain line `N passed, N failed`, counting each test and each check.
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { ensure, root } from "./ensure.mjs";

try {
  ensure();
} catch (error) {
  process.stdout.write(`${error.message}\n0 passed, 1 failed\n`);
  process.exit(1);
}

let passed = 0;
let failed = 0;
let skipped = 0;
const bin = (name) => path.join(root, "node_modules", ".bin", name);

function run(command, args) {
  return spawnSync(command, args, { cwd: root, stdio: "inherit", shell: process.platform === "win32" }).status === 0;
}

function check(title, command, args) {
  process.stdout.write(`\n== ${title}\n`);
  if (run(command, args)) passed++;
  else failed++;
}

function tests(project) {
  process.stdout.write(`\n== ${project} tests\n`);
  const report = path.join(os.tmpdir(), `etcd-ts-${project}-${process.pid}.json`);
  const ok = run(bin("vitest"), [
    "run",
    "--project",
    project,
    "--reporter=default",
    "--reporter=json",
    `--outputFile.json=${report}`,
  ]);
  let counted = 0;
  try {
    const result = JSON.parse(fs.readFileSync(report, "utf8"));
    passed += result.numPassedTests;
    failed += result.numFailedTests;
    skipped += result.numPendingTests + result.numTodoTests;
    counted = result.numFailedTests;
  } catch (error) {
    process.stdout.write(`no test report: ${error.message}\n`);
  }
  fs.rmSync(report, { force: true });
  // A file that does not load, or an error outside of any test, fails the run without a failed test.
  if (!ok && counted === 0) failed++;
}

check("format", bin("biome"), ["format", "."]);
check("lint", bin("biome"), ["lint", "--error-on-warnings", "."]);
check("layers", process.execPath, [path.join(root, "scripts", "check-layers.mjs")]);
check("types", bin("tsc"), ["-p", "tsconfig.json"]);
tests("unit");
tests("e2e");

process.stdout.write(`\n${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ""}\n`);
process.exit(failed === 0 ? 0 : 1);
