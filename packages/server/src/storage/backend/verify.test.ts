import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { utf8Bytes } from "../../lib/bytes.ts";
import { systemClock } from "../../lib/clock.ts";
import { silentLogger } from "../../lib/log.ts";
import { openBackend } from "./backend.ts";
import type { Backend } from "./types.ts";
import { verifyBackendFile } from "./verify.ts";

const folders: string[] = [];

afterEach(() => {
  for (const folder of folders.splice(0)) fs.rmSync(folder, { recursive: true, force: true });
});

function open(file: string): Promise<Backend> {
  return openBackend({
    path: file,
    clock: systemClock,
    logger: silentLogger,
    commits: "inline",
    mapSizeBytes: 2 ** 30,
    onFatal: (error) => {
      throw error;
    },
  });
}

/** A closed file with short and long values in it. */
async function filled(): Promise<string> {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "verify-"));
  folders.push(folder);
  const file = path.join(folder, "db.lmdb");
  const backend = await open(file);
  backend.write((tx) => {
    for (let i = 0; i < 2_000; i++) tx.put("key", utf8Bytes(`k${i}`), new Uint8Array(i % 100 === 0 ? 20_000 : 40));
  });
  await backend.close();
  return file;
}

describe("a backend file that LMDB would die of", () => {
  it("is refused wherever it was cut", async () => {
    const file = await filled();
    const whole = fs.readFileSync(file);
    const pageBytes = whole.readUInt32LE(48);
    const lastPage = Math.max(...[0, pageBytes].map((at) => Number(whole.readBigUInt64LE(at + 144))));
    expect(() => verifyBackendFile(file)).not.toThrow();
    // Every cut that loses pages in use; at the very end there may be free ones.
    let refused = 0;
    for (let pages = 1; pages <= lastPage; pages += 7) {
      fs.writeFileSync(file, whole.subarray(0, pages * pageBytes - 100));
      try {
        verifyBackendFile(file);
      } catch (error) {
        expect(String(error)).toMatch(/truncated|damaged/);
        refused++;
        continue;
      }
      const backend = await open(file);
      for (let i = 0; i < 2_000; i++) expect(backend.get("key", utf8Bytes(`k${i}`))).toBeDefined();
      await backend.close();
    }
    expect(refused).toBeGreaterThan(10);
    fs.writeFileSync(file, whole.subarray(0, 5 * pageBytes));
    await expect(open(file)).rejects.toThrow(/db\.lmdb is truncated/);
  });

  it("is refused when it is something else, or its head is damaged", async () => {
    const file = await filled();
    const whole = fs.readFileSync(file);
    fs.writeFileSync(file, new Uint8Array(100_000).fill(0x5a));
    await expect(open(file)).rejects.toThrow(/not an LMDB file, or its head is damaged/);
    fs.writeFileSync(file, "short");
    await expect(open(file)).rejects.toThrow(/not an LMDB file/);
    const second = Buffer.from(whole);
    second.fill(0, 4096, 4096 + 100);
    fs.writeFileSync(file, second);
    await expect(open(file)).rejects.toThrow(/head is damaged/);
  });

  it("is refused when it, or its lock, is a folder", async () => {
    const file = await filled();
    fs.rmSync(`${file}-lock`);
    fs.mkdirSync(`${file}-lock`);
    await expect(open(file)).rejects.toThrow(/lock file .*db\.lmdb-lock: not a regular file/);
    fs.rmdirSync(`${file}-lock`);
    fs.rmSync(file);
    fs.mkdirSync(file);
    await expect(open(file)).rejects.toThrow(/db\.lmdb is not a regular file/);
  });

  it("may lack free pages at its end", async () => {
    const file = await filled();
    // Pages beyond the file's end, as if a commit had taken and given them back: nothing refers to them.
    const bytes = fs.readFileSync(file);
    const pages = BigInt(bytes.length / bytes.readUInt32LE(48));
    for (const at of [0, bytes.readUInt32LE(48)]) bytes.writeBigUInt64LE(pages + 3n, at + 144);
    fs.writeFileSync(file, bytes);
    expect(() => verifyBackendFile(file)).not.toThrow();
  });

  it("may be absent or empty", async () => {
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), "verify-"));
    folders.push(folder);
    const file = path.join(folder, "db.lmdb");
    expect(() => verifyBackendFile(file)).not.toThrow();
    fs.writeFileSync(file, "");
    const backend = await open(file);
    await backend.close();
  });
});
