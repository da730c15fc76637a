/**
 * Replays the recorded transcripts of the real tools on ours. The recordings lie beside the checkout; without them
 * the test skips. One test a group of commands, so that a failure names its group.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { ourBin, realBin, sharedFolder } from "./harness/processes.ts";

async function replay(args: string[]): Promise<{ code: number | null; output: string }> {
  const runner = path.join(sharedFolder as string, "conformance", "run.mjs");
  const child = spawn(process.execPath, [runner, "--check", "-j", "2", "--slow", "2", ...args], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  let output = "";
  child.stdout.on("data", (chunk: Buffer) => {
    output += chunk.toString();
  });
  child.stderr.on("data", (chunk: Buffer) => {
    output += chunk.toString();
  });
  const [code] = (await once(child, "close")) as [number | null];
  return { code, output };
}

describe("conformance", () => {
  // `--no-real` leaves out the few steps that look at the real one's own database file or at its panics.
  it.skipIf(!sharedFolder)(
    "our tools on our server",
    async () => {
      const { code, output } = await replay(["--bin", ourBin, "--no-real"]);
      expect(code, output.slice(-6000)).toBe(0);
    },
    900_000,
  );

  it.skipIf(!sharedFolder || !realBin)(
    "our etcdctl on the real server",
    async () => {
      const real = realBin as string;
      const etcdutl = path.join(real, "etcdutl");
      const args = ["--bin", ourBin, "--etcdutl", etcdutl, "--server-bin", real, "--only", "^(?!utl-)"];
      const { code, output } = await replay(args);
      expect(code, output.slice(-6000)).toBe(0);
    },
    900_000,
  );

  it.skipIf(!sharedFolder || !realBin)(
    "the real etcdctl on our server",
    async () => {
      const args = ["--bin", realBin as string, "--server-bin", ourBin, "--no-real", "--only", "^(?!utl-)"];
      const { code, output } = await replay(args);
      expect(code, output.slice(-6000)).toBe(0);
    },
    900_000,
  );
});
