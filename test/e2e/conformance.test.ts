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

/** Cases that need one unsecured member, by the beginning of their names. */
const ONE_MEMBER =
  "^(put|get|del|txn|watch|compaction|lease|endpoint-(hashkv|health|status)|endpoints-forms|alarm|defrag|snapshot|version|global|help|conn-refused|conn-failover|utl|member-(list|formats))";

describe("conformance", () => {
  it.skipIf(!sharedFolder)(
    "our tools on our server",
    async () => {
      const { code, output } = await replay(["--bin", ourBin, "--only", ONE_MEMBER]);
      expect(code, output.slice(-6000)).toBe(0);
    },
    600_000,
  );

  it.skipIf(!sharedFolder || !realBin)(
    "our tools on the real server",
    async () => {
      const { code, output } = await replay(["--bin", ourBin, "--server-bin", realBin as string, "--only", ONE_MEMBER]);
      expect(code, output.slice(-6000)).toBe(0);
    },
    600_000,
  );

  it.skipIf(!sharedFolder || !realBin)(
    "the real tools on our server",
    async () => {
      const { code, output } = await replay(["--bin", realBin as string, "--server-bin", ourBin, "--only", ONE_MEMBER]);
      expect(code, output.slice(-6000)).toBe(0);
    },
    600_000,
  );
});
