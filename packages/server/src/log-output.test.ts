import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { VirtualClock } from "./lib/clock.ts";
import { formatLogTime } from "./lib/go-format.ts";
import {
  encodeConsole,
  encodeJson,
  type LogEntry,
  type LogSink,
  openLogger,
  parseLogLevel,
  parseRotationConfig,
  RotatingFileSink,
  ZapLogger,
} from "./log-output.ts";

const timeMs = 1_700_000_000_123.25;
const entry: LogEntry = {
  level: "warn",
  timeMs,
  name: undefined,
  caller: "etcdserver/apply.ts:12",
  message: 'apply "request"',
  fields: {
    took: "7s",
    id: 2n ** 63n,
    error: new Error("no\n"),
    left: undefined,
    list: ["a"],
    key: Uint8Array.of(1),
    on: true,
  },
};

class Lines implements LogSink {
  readonly lines: string[] = [];
  write(line: string): void {
    this.lines.push(line);
  }
  close(): void {}
}

describe("encodeJson()", () => {
  it("has zap's keys in zap's order, then the fields as given", () => {
    expect(encodeJson(entry)).toBe(
      `{"level":"warn","ts":"${formatLogTime(timeMs)}","caller":"etcdserver/apply.ts:12","msg":"apply \\"request\\"","took":"7s","id":9223372036854775808,"error":"no\\n","list":["a"],"key":"AQ==","on":true}\n`,
    );
  });

  it("names the logger after the time", () => {
    const { logger, ...rest } = JSON.parse(encodeJson({ ...entry, name: "raft", fields: undefined }));
    expect(logger).toBe("raft");
    expect(Object.keys(rest)).toEqual(["level", "ts", "caller", "msg"]);
  });
});

describe("encodeConsole()", () => {
  it("parts columns with tabs", () => {
    expect(encodeConsole({ ...entry, fields: { took: "7s" } })).toBe(
      `${formatLogTime(timeMs)}\twarn\tetcdserver/apply.ts:12\tapply "request"\t{"took": "7s"}\n`,
    );
  });
});

describe("ZapLogger", () => {
  const logger = (level: "debug" | "info", sink: LogSink, clock = new VirtualClock()) =>
    new ZapLogger({ level, sinks: [sink], clock });

  it("leaves out what is below its level", () => {
    const sink = new Lines();
    const log = logger("info", sink);
    log.debug("a");
    log.info("b");
    expect(sink.lines.map((line) => JSON.parse(line).msg)).toEqual(["b"]);
    expect(log.isDebugEnabled).toBe(false);
  });

  it("says who called", () => {
    const sink = new Lines();
    logger("info", sink).info("here");
    expect(JSON.parse(sink.lines[0] as string).caller).toMatch(/^src\/log-output\.test\.ts:\d+$/);
  });

  it("writes the first hundred lines of a text in a second, then every hundredth", () => {
    const sink = new Lines();
    const clock = new VirtualClock();
    const log = logger("info", sink, clock);
    for (let i = 0; i < 450; i++) log.info("again");
    expect(sink.lines.length).toBe(103);
    clock.advance(1000);
    log.info("again");
    expect(sink.lines.length).toBe(104);
  });
});

describe("openLogger()", () => {
  const settings = {
    logger: "zap",
    logOutputs: ["default"],
    logLevel: "info",
    enableLogRotation: false,
    logRotationConfigJson: "{}",
  };
  const clock = new VirtualClock();

  it.each([
    [{ logger: "capnslog" }, "--logger=capnslog is removed in v3.5"],
    [{ logger: "foo" }, 'unknown logger option "foo"'],
    [{ logOutputs: ["default", "stdout"] }, 'multi logoutput for "default" is not supported yet'],
    [{ enableLogRotation: true }, "--log-outputs requires a single file path when --log-rotate-config-json is defined"],
    [{ logLevel: "loud" }, 'unrecognized level: "loud"'],
  ])("refuses %j", (change, message) => {
    expect(() => openLogger({ ...settings, ...change }, clock)).toThrow(message);
  });

  it("knows zap's levels", () => {
    expect(parseLogLevel("PANIC")).toBe("panic");
    expect(parseLogLevel("verbose")).toBeUndefined();
  });
});

describe("log files", () => {
  let folder: string;
  beforeEach(() => {
    folder = mkdtempSync(path.join(tmpdir(), "etcd-log-"));
  });
  afterEach(() => rmSync(folder, { recursive: true, force: true }));

  it("are appended to", () => {
    const file = path.join(folder, "etcd.log");
    for (const message of ["one", "two"]) {
      const log = openLogger(
        { logger: "zap", logOutputs: [file], logLevel: "info", enableLogRotation: false, logRotationConfigJson: "" },
        new VirtualClock(),
      );
      log.info(message);
      log.close();
    }
    const lines = readFileSync(file, "utf8").trimEnd().split("\n");
    expect(lines.map((line) => JSON.parse(line).msg)).toEqual(["one", "two"]);
  });

  it("are put aside at their size, and old ones thinned out", () => {
    const clock = new VirtualClock();
    const config = { ...parseRotationConfig('{"maxsize": 1, "maxbackups": 2}') };
    const sink = new RotatingFileSink(path.join(folder, "etcd.log"), config, clock);
    const line = `${"x".repeat(700 * 1024)}\n`;
    for (let i = 0; i < 5; i++) {
      sink.write(line);
      clock.advance(1000);
    }
    sink.close();
    const names = readdirSync(folder).sort();
    expect(names.length).toBe(3);
    expect(names.at(-1)).toBe("etcd.log");
    expect(names[0]).toMatch(/^etcd-\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d\.\d{3}\.log$/);
  });
});

describe("parseRotationConfig()", () => {
  it.each([
    ["{", /^improperly formatted log rotation config: /],
    ['{"maxsize": "a"}', /^invalid log rotation config: json: cannot unmarshal string /],
  ])("refuses %s", (json, message) => {
    expect(() => parseRotationConfig(json)).toThrow(message);
  });
});
