import { gunzipSync } from "node:zlib";
import protobuf from "protobufjs";
import { describe, expect, it } from "vitest";
import { cpuSamples, heapSamples } from "./pprof.ts";
import { encodeProfile, type ProfileFunction } from "./profile-format.ts";

// The part of pprof's profile.proto that is written.
const Profile = protobuf
  .parse(`
  syntax = "proto3";
  message ValueType { int64 type = 1; int64 unit = 2; }
  message Sample { repeated uint64 location_id = 1; repeated int64 value = 2; }
  message Mapping { uint64 id = 1; int64 filename = 5; bool has_functions = 7; bool has_filenames = 8; bool has_line_numbers = 9; }
  message Line { uint64 function_id = 1; int64 line = 2; }
  message Location { uint64 id = 1; uint64 mapping_id = 2; repeated Line line = 4; }
  message Function { uint64 id = 1; int64 name = 2; int64 system_name = 3; int64 filename = 4; int64 start_line = 5; }
  message Profile {
    repeated ValueType sample_type = 1; repeated Sample sample = 2; repeated Mapping mapping = 3;
    repeated Location location = 4; repeated Function function = 5; repeated string string_table = 6;
    int64 time_nanos = 9; int64 duration_nanos = 10; ValueType period_type = 11; int64 period = 12;
  }`)
  .root.lookupType("Profile");

interface Decoded {
  sampleType: { type: string; unit: string }[];
  sample: { locationId: string[]; value: string[] }[];
  mapping: { id: string }[];
  location: { id: string; mappingId: string; line: { functionId: string; line?: string }[] }[];
  function: { id: string; name: string; filename?: string }[];
  stringTable: string[];
  timeNanos: string;
  durationNanos: string;
  periodType: { type: string; unit: string };
  period: string;
}

/** As a reader of the format sees it: names in the place of numbers. */
function read(bytes: Uint8Array) {
  const profile = Profile.toObject(Profile.decode(gunzipSync(bytes)), { longs: String }) as unknown as Decoded;
  const text = (index: string | undefined) => profile.stringTable[Number(index ?? 0)];
  const functions = new Map(profile.function.map((fn) => [fn.id, fn]));
  const locations = new Map(profile.location.map((location) => [location.id, location]));
  return {
    profile,
    types: profile.sampleType.map(({ type, unit }) => `${text(type)}/${text(unit)}`),
    samples: profile.sample.map(({ locationId, value }) => ({
      values: value.map(Number),
      stack: locationId.map((id) => {
        const location = locations.get(id) as Decoded["location"][0];
        expect(location.mappingId).toBe("1");
        const line = location.line[0] as { functionId: string; line?: string };
        const fn = functions.get(line.functionId) as Decoded["function"][0];
        return `${text(fn.name)} ${text(fn.filename)}:${line.line ?? 0}`;
      }),
    })),
  };
}

const fn = (name: string, line = 1): ProfileFunction => ({ name, file: "a.js", line });

describe("encodeProfile()", () => {
  it("writes stacks, values, names and times as pprof reads them", () => {
    const { profile, types, samples } = read(
      encodeProfile({
        types: [
          { type: "samples", unit: "count" },
          { type: "cpu", unit: "nanoseconds" },
        ],
        samples: [
          { stack: [fn("leaf"), fn("root", 7)], values: [2, 3_000_000_000] },
          { stack: [fn("root", 7)], values: [1, 2 ** 50] },
          { stack: [fn("gone")], values: [-1, -300] },
        ],
        period: 1_000_000,
        startedMs: 1_700_000_000_000,
        durationMs: 1_500,
      }),
    );
    expect(types).toEqual(["samples/count", "cpu/nanoseconds"]);
    expect(samples).toEqual([
      { stack: ["leaf a.js:1", "root a.js:7"], values: [2, 3_000_000_000] },
      { stack: ["root a.js:7"], values: [1, 2 ** 50] },
      { stack: ["gone a.js:1"], values: [-1, -300] },
    ]);
    expect(profile.stringTable[0]).toBe("");
    expect(profile.function).toHaveLength(3);
    expect(profile.mapping).toHaveLength(1);
    expect(profile.timeNanos).toBe("1700000000000000000");
    expect([profile.durationNanos, profile.period]).toEqual(["1500000000", "1000000"]);
  });
});

const frame = (functionName: string) => ({
  functionName,
  scriptId: "1",
  url: "file:///x.js",
  lineNumber: 4,
  columnNumber: 0,
});

it("cpuSamples() adds up equal stacks by the time to the next sample, and leaves idle time out", () => {
  const samples = cpuSamples({
    nodes: [
      { id: 1, callFrame: frame("(root)"), children: [2, 4] },
      { id: 2, callFrame: frame("a"), children: [3] },
      { id: 3, callFrame: frame("") },
      { id: 4, callFrame: frame("(idle)") },
    ],
    startTime: 0,
    endTime: 10_000,
    samples: [3, 3, 4, 2],
    timeDeltas: [0, 1000, 2000, 3000],
  });
  expect(samples.map(({ stack, values }) => [stack.map(({ name }) => name), values])).toEqual([
    [
      ["(anonymous)", "a"],
      [2, 3_000_000],
    ],
    [["a"], [1, 1_000_000]],
  ]);
  expect(samples[1]?.stack[0]).toEqual({ name: "a", file: "/x.js", line: 5 });
});

it("heapSamples() gives what each stack holds itself", () => {
  const leaf = { callFrame: frame("b"), selfSize: 5, id: 3, children: [] };
  const a = { callFrame: frame("a"), selfSize: 7, id: 2, children: [leaf] };
  const root = { callFrame: frame("(root)"), selfSize: 0, id: 1, children: [a] };
  const samples = heapSamples({ head: root });
  expect(samples.map(({ stack, values }) => [stack.map(({ name }) => name).join(" "), values[0]])).toEqual([
    ["a", 7],
    ["b a", 5],
  ]);
});
