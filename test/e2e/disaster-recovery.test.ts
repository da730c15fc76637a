/** Runs docs/disaster-recovery.md: all of its command blocks, in one shell, in order. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import path from "node:path";
import { expect, it } from "vitest";
import { freePort, ourBin, repoRoot, temporaryFolder } from "./harness/processes.ts";

/** Whether a server of the script did not start because another process was quicker to take its port. */
function lostPort(folder: string): boolean {
  const logs = fs.readdirSync(folder).filter((name) => name.endsWith(".log"));
  return logs.some((name) => fs.readFileSync(path.join(folder, name), "utf8").includes("bind: address already in use"));
}

/** Runs the blocks in one shell; undefined when it has to be done again with other ports. */
async function runBlocks(blocks: readonly string[]): Promise<string | undefined> {
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
      env: { PATH: `${ourBin}:${process.env["PATH"]}`, HOME: folder.path },
      stdio: ["ignore", "pipe", "pipe"],
    },
  );
  let output = "";
  for (const stream of [shell.stdout, shell.stderr]) {
    stream.on("data", (piece: Buffer) => {
      output += piece.toString();
    });
  }
  // The page waits for its servers for as long as it takes, and this one will not come.
  let isLost = false;
  const look = setInterval(() => {
    if (isLost || !lostPort(folder.path)) return;
    isLost = true;
    shell.kill("SIGTERM");
  }, 200);
  const [code] = (await once(shell, "close")) as [number | null];
  clearInterval(look);
  return isLost ? undefined : `${output}\nexit code ${code}`;
}

it("every command block of docs/disaster-recovery.md does what the page says", async () => {
  const page = fs.readFileSync(path.join(repoRoot, "docs", "disaster-recovery.md"), "utf8");
  const blocks = [...page.matchAll(/^```sh\n([\s\S]*?)^```$/gm)].map(([, block]) => block as string);
  expect(blocks.length).toBeGreaterThan(10);
  let output: string | undefined;
  for (let attempt = 0; output === undefined && attempt < 5; attempt++) output = await runBlocks(blocks);
  expect(output).toMatch(/exit code 0$/);
  for (const text of ["value 3", "before the loss", "exit code 20", "would restore", "would defragment", "clean"]) {
    expect(output).toContain(text);
  }
  expect(output?.match(/== block/g)?.length).toBe(blocks.length);
}, 900_000);
