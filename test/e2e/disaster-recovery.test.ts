/** Runs docs/disaster-recovery.md: all of its command blocks, in one shell, in order. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import path from "node:path";
import { expect, it } from "vitest";
import { freePort, ourBin, repoRoot, temporaryFolder } from "./harness/processes.ts";

it("every command block of docs/disaster-recovery.md does what the page says", async () => {
  const page = fs.readFileSync(path.join(repoRoot, "docs", "disaster-recovery.md"), "utf8");
  const blocks = [...page.matchAll(/^```sh\n([\s\S]*?)^```$/gm)].map(([, block]) => block as string);
  expect(blocks.length).toBeGreaterThan(10);
  let script = blocks.map((block, i) => `echo "== block ${i + 1}"\n${block}`).join("\n");
  for (const port of ["22379", "22380", "32379", "32380", "2379", "2380"]) {
    const free = String(await freePort());
    script = script.replaceAll(new RegExp(`:${port}\\b`, "g"), `:${free}`);
  }
  using folder = temporaryFolder("recovery");
  // A server that a failed block leaves behind ends with the shell.
  const shell = spawn(
    "bash",
    ["-euo", "pipefail", "-c", `trap 'kill $(jobs -p) 2> /dev/null || true' EXIT\n${script}`],
    {
      cwd: folder.path,
      // Of its own five seconds etcdctl may need more on a busy machine.
      env: { PATH: `${ourBin}:${process.env["PATH"]}`, HOME: folder.path, ETCDCTL_COMMAND_TIMEOUT: "30s" },
      stdio: ["ignore", "pipe", "pipe"],
    },
  );
  let output = "";
  for (const stream of [shell.stdout, shell.stderr]) {
    stream.on("data", (piece: Buffer) => {
      output += piece.toString();
    });
  }
  const [code] = (await once(shell, "close")) as [number | null];
  expect(`${output}\nexit code ${code}`).toMatch(/exit code 0$/);
  const said = (text: string): boolean => output.includes(text);
  for (const text of ["value 3", "before the loss", "exit code 20", "would restore", "would defragment", "clean"]) {
    expect(said(text), text).toBe(true);
  }
  expect(output.match(/== block/g)?.length).toBe(blocks.length);
}, 900_000);
