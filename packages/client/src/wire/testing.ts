/**
 * For tests of codecs, here and in the server: protobuf JSON with original field names in and out of messages, and
 * generators of arbitrary messages from the field descriptors.
 */
import fc from "fast-check";
import type { Codec, FieldInfo, Init } from "./index.ts";

type Plain = Record<string, unknown>;

function scalarFromJson(field: FieldInfo, value: unknown): unknown {
  switch (field.type) {
    case "message":
      return fromJson((field.message as () => Codec<unknown>)(), value as Plain);
    case "enum":
      return typeof value === "number" ? value : field.enum?.numberOf[String(value)];
    case "bytes":
      return new Uint8Array(Buffer.from(String(value), "base64"));
    case "int64":
    case "uint64":
      return field.isBigint ? BigInt(String(value)) : Number(value);
    default:
      return value;
  }
}

/** Builds a message from protobuf JSON with original field names. */
export function fromJson(codec: Codec<unknown>, json: Plain): unknown {
  const init: Plain = {};
  for (const [name, value] of Object.entries(json)) {
    const field = codec.fields.find((f) => f.name === name);
    if (!field) throw new Error(`${codec.typeName} has no field ${name}`);
    const converted = field.isRepeated
      ? (value as unknown[]).map((each) => scalarFromJson(field, each))
      : scalarFromJson(field, value);
    if (field.oneof === undefined) init[field.key] = converted;
    else init[field.oneof] = { kind: field.key, value: converted };
  }
  return codec.create(init as Init<unknown>);
}

const INT64_MAX = 2n ** 63n - 1n;

function arbitraryScalar(field: FieldInfo, depth: number): fc.Arbitrary<unknown> {
  switch (field.type) {
    case "message":
      return arbitraryMessage((field.message as () => Codec<unknown>)(), depth - 1);
    case "enum":
      return fc.oneof(fc.constantFrom(...Object.values(field.enum?.numberOf ?? {})), fc.integer());
    case "bool":
      return fc.boolean();
    case "bytes":
      return fc.uint8Array({ maxLength: 40 });
    case "string":
      return fc.oneof(fc.string(), fc.string({ unit: "grapheme", maxLength: 120 }));
    case "int32":
      return fc.integer();
    case "uint32":
      return fc.nat(0xffffffff);
    case "int64":
      return field.isBigint ? fc.bigInt({ min: -INT64_MAX - 1n, max: INT64_MAX }) : fc.maxSafeInteger();
    case "uint64":
      return field.isBigint ? fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }) : fc.maxSafeNat();
  }
}

/** Complete messages of a type, nested at most `depth` deep. */
export function arbitraryMessage(codec: Codec<unknown>, depth = 3): fc.Arbitrary<unknown> {
  const shape: Record<string, fc.Arbitrary<unknown>> = {};
  const oneofs = new Map<string, fc.Arbitrary<unknown>[]>();
  for (const field of codec.fields) {
    if (field.type === "message" && depth <= 0) continue;
    const one = arbitraryScalar(field, depth);
    if (field.oneof !== undefined) {
      const choice = one.map((value) => ({ kind: field.key, value }));
      oneofs.set(field.oneof, [...(oneofs.get(field.oneof) ?? []), choice]);
    } else if (field.isRepeated) shape[field.key] = fc.array(one, { maxLength: 4 });
    else if (field.type === "message" || field.hasPresence) {
      shape[field.key] = fc.option(one, { nil: undefined });
    } else shape[field.key] = one;
  }
  for (const [name, choices] of oneofs) shape[name] = fc.option(fc.oneof(...choices), { nil: undefined });
  return fc.record(shape).map((init) => codec.create(init as Init<unknown>));
}

/** Every codec a module exports. */
export function codecsOf(module: Readonly<Record<string, unknown>>): Codec<unknown>[] {
  return Object.values(module).filter(
    (value): value is Codec<unknown> =>
      typeof value === "object" && value !== null && "decode" in value && "fields" in value,
  );
}
