import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { Logger } from "../lib/log.ts";
import { DataDirError, dataDirPaths, inspectDataDir, prepareDataDir } from "./data-dir.ts";

let dir: string;
let warnings: string[];
const logger: Logger = {
  debug() {},
  info() {},
  warn: (message, fields) => void warnings.push(`${message} ${JSON.stringify(fields)}`),
  error() {},
  isDebugEnabled: false,
};

beforeEach(() => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), "data-dir-test-"));
  warnings = [];
});
afterEach(() => {
  fs.rmSync(dir, { recursive: true, force: true });
});

describe("prepareDataDir()", () => {
  it("makes the folders for their owner alone", async () => {
    const paths = dataDirPaths(path.join(dir, "a/b"));
    await prepareDataDir(paths, logger);
    for (const folder of [paths.dataDir, paths.memberDir, paths.snapDir]) {
      expect(fs.statSync(folder).mode & 0o777).toBe(0o700);
    }
    expect(fs.existsSync(paths.walDir)).toBe(false);
    await prepareDataDir(paths, logger);
    expect(warnings).toEqual([]);
    fs.chmodSync(paths.dataDir, 0o755);
    await prepareDataDir(paths, logger);
    expect(warnings.join()).toContain('but the permission is \\"drwxr-xr-x\\"');
  });

  it("says in one line what is in the way", async () => {
    fs.writeFileSync(path.join(dir, "file"), "");
    const attempt = (dataDir: string) => prepareDataDir(dataDirPaths(dataDir), logger);
    await expect(attempt(path.join(dir, "file/x"))).rejects.toThrow(DataDirError);
    await expect(attempt("/proc/nope")).rejects.toThrow(
      "cannot access data directory: mkdir /proc/nope: no such file or directory",
    );
  });

  it("knows a member's directory from others, and warns of what does not belong there", async () => {
    expect(await inspectDataDir(path.join(dir, "none"), logger)).toBe("empty");
    fs.mkdirSync(path.join(dir, "member"));
    fs.writeFileSync(path.join(dir, "strange"), "");
    expect(await inspectDataDir(dir, logger)).toBe("member");
    expect(warnings.length).toBe(1);
    fs.mkdirSync(path.join(dir, "proxy"));
    await expect(inspectDataDir(dir, logger)).rejects.toThrow(
      "invalid datadir; both member and proxy directories exist",
    );
  });
});
