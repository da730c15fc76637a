import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type JsonValue, JsonError, jsonId, parseJson, stringifyJson } from "./json.ts";

describe("json", () => {
  it("keeps every digit of 64-bit ids", () => {
    const text = '{"voters":[7101852577860610209,18446744073709551615,1],"auto_leave":false}';
    const value = parseJson(text) as { voters: JsonValue[] };
    expect(value.voters.map(jsonId)).toEqual([7101852577860610209n, 18446744073709551615n, 1n]);
    expect(stringifyJson(value)).toBe(text);
  });

  it("agrees with JSON.parse wherever that is exact", () => {
    fc.assert(
      fc.property(fc.json(), (text) => {
        const plain = JSON.parse(text);
        if (/\d{16}/.test(text)) return;
        expect(JSON.parse(JSON.stringify(parseJson(text)))).toEqual(JSON.parse(JSON.stringify(plain)));
      }),
    );
  });

  it("refuses what is not one document", () => {
    for (const text of ["", "{", "[1,]", "{1:2}", "01", "nul", '"\n"', "1 2", '{"a":1,}', "[".repeat(300)]) {
      expect(() => parseJson(text), text).toThrow(JsonError);
    }
  });

  it("escapes as Go does", () => {
    expect(stringifyJson({ a: "<&>\u2028é\n", b: undefined, c: null })).toBe(
      '{"a":"\\u003c\\u0026\\u003e\\u2028é\\n","c":null}',
    );
  });
});
