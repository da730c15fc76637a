// Generates the protobuf codecs from proto/. Run after a change there, and commit the result:
//
//   node scripts/generate-wire.mjs           writes packages/client/src/wire/gen and packages/server/src/pb/gen
//   node scripts/generate-wire.mjs --check   writes nothing; fails when a generated file is not what proto/ says
//
// What the .proto files say to this program besides the schema:
//   [jstype = JS_NUMBER]             a counter: `number`, saturated at the safe integers. Other 64-bit fields: `bigint`.
//   [(etcdts.always_written) = true] see proto/internal/options.proto
//   (google.api.http)                the gateway's routes
// Comments before a message, field, enum, service or method become doc comments.
import fs from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import protobuf from "protobufjs";

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const protoDir = path.join(root, "proto");

/** Each generated file, and the .proto files it is made from. */
const OUTPUTS = [
  { file: "packages/client/src/wire/gen/kv.gen.ts", from: ["mvccpb/kv.proto"] },
  { file: "packages/client/src/wire/gen/auth.gen.ts", from: ["authpb/auth.proto"] },
  { file: "packages/client/src/wire/gen/rpc.gen.ts", from: ["etcdserverpb/rpc.proto"] },
  { file: "packages/client/src/wire/gen/lock.gen.ts", from: ["v3lockpb/lock.proto"] },
  { file: "packages/client/src/wire/gen/election.gen.ts", from: ["v3electionpb/election.proto"] },
  { file: "packages/client/src/wire/gen/health.gen.ts", from: ["grpc/health/v1/health.proto"] },
  { file: "packages/server/src/pb/gen/raftpb.gen.ts", from: ["internal/raftpb.proto"] },
  { file: "packages/server/src/pb/gen/walpb.gen.ts", from: ["internal/walpb.proto"] },
  { file: "packages/server/src/pb/gen/snappb.gen.ts", from: ["internal/snappb.proto"] },
  { file: "packages/server/src/pb/gen/membershippb.gen.ts", from: ["internal/membershippb.proto"] },
  {
    file: "packages/server/src/pb/gen/etcdserverpb.gen.ts",
    from: ["internal/v2request.proto", "internal/raft_internal.proto"],
  },
  { file: "packages/server/src/pb/gen/authpb.gen.ts", from: ["internal/authpb.proto"] },
  { file: "packages/server/src/pb/gen/leasepb.gen.ts", from: ["internal/leasepb.proto"] },
];

/** Enum values whose words run together in the .proto file. */
const ENUM_WORDS = { NOPUT: "NoPut", NODELETE: "NoDelete", NOSPACE: "NoSpace", READWRITE: "ReadWrite" };

const fileOf = new Map();

function load() {
  const tree = new protobuf.Root();
  tree.resolvePath = (_origin, target) =>
    target.startsWith("google/") || target === "internal/options.proto" ? null : path.join(protoDir, target);
  for (const output of OUTPUTS) {
    for (const from of output.from) tree.loadSync(from, { keepCase: true, alternateCommentMode: true });
  }
  tree.resolveAll();
  const visit = (node) => {
    for (const child of node.nestedArray ?? []) {
      if (child.filename) {
        const relative = path.relative(protoDir, child.filename).split(path.sep).join("/");
        const output = OUTPUTS.find((o) => o.from.includes(relative));
        if (output) fileOf.set(child, output);
      }
      visit(child);
    }
  };
  visit(tree);
  return tree;
}

function pascal(name) {
  return name.charAt(0).toUpperCase() + name.slice(1);
}

/** `range_end` -> `rangeEnd`, `peerURLs` -> `peerUrls`, `member_ID` -> `memberId`, `TTL` -> `ttl`. */
function camel(name) {
  const words = name.match(/[A-Z]+s?(?![a-z])|[A-Z][a-z0-9]*|[a-z0-9]+/g) ?? [name];
  return words
    .map((word, i) => (i === 0 ? word.toLowerCase() : word.charAt(0).toUpperCase() + word.slice(1).toLowerCase()))
    .join("");
}

/** protoc's rule: an underscore goes and the next letter is raised; nothing else changes. */
function jsonName(name) {
  return name.replace(/_(.)/g, (_all, c) => c.toUpperCase());
}

function enumKey(name) {
  if (ENUM_WORDS[name]) return ENUM_WORDS[name];
  if (!/^[A-Z_0-9]+$/.test(name)) return name;
  return name
    .split("_")
    .map((word) => word.charAt(0) + word.slice(1).toLowerCase())
    .join("");
}

function tsName(type) {
  if (type instanceof protobuf.Enum && type.name === "Type") return `${type.parent.name}Type`;
  return pascal(type.name);
}

const typeName = (type) => type.fullName.replace(/^\./, "");
const isProto2 = (field) => !fieldSyntax(field).startsWith("proto3");
const proto2Files = new Map();

function fieldSyntax(field) {
  const file = field.filename ?? field.parent.filename;
  if (!proto2Files.has(file)) proto2Files.set(file, /syntax = "(proto[23])"/.exec(fs.readFileSync(file, "utf8"))[1]);
  return proto2Files.get(file);
}

function describe(field) {
  const options = field.options ?? {};
  const enumType = field.resolvedType instanceof protobuf.Enum ? field.resolvedType : undefined;
  const message = field.resolvedType instanceof protobuf.Type ? field.resolvedType : undefined;
  const is64 = field.type === "int64" || field.type === "uint64";
  const isBigint = is64 && options.jstype !== "JS_NUMBER";
  const always = options["(etcdts.always_written)"] === true;
  const proto2 = isProto2(field);
  const oneof = field.partOf;
  return {
    name: field.name,
    key: camel(field.name),
    number: field.id,
    json: jsonName(field.name),
    enumType,
    message,
    scalar: message || enumType ? undefined : field.type,
    isBigint,
    repeated: field.repeated,
    packed: field.repeated && !message && field.type !== "string" && field.type !== "bytes" && !proto2,
    always,
    emptyIsAbsent: options["(etcdts.empty_is_absent)"] === true,
    oneof: oneof ? { key: camel(oneof.name), name: oneof.name } : undefined,
    // proto2 fields without the option tell absent from zero; with `= false` they are like those of proto3.
    presence: !field.repeated && !oneof && !message && proto2 && options["(etcdts.always_written)"] === undefined,
    comment: field.comment,
  };
}

const wireType = (f) => (f.message || f.scalar === "string" || f.scalar === "bytes" ? 2 : 0);
const tagOf = (f, wire = wireType(f)) => f.number * 8 + wire;

function elementType(f) {
  if (f.message) return tsName(f.message);
  if (f.enumType) return tsName(f.enumType);
  if (f.scalar === "bytes") return "Uint8Array";
  if (f.scalar === "string") return "string";
  if (f.scalar === "bool") return "boolean";
  return f.isBigint ? "bigint" : "number";
}

/** An always written message is never undefined, unless an empty one counts as absent. */
const isMaybe = (f) => (f.message && !f.repeated && (!f.always || f.emptyIsAbsent)) || f.presence;

function fieldType(f) {
  if (f.repeated) return `${elementType(f)}[]`;
  return isMaybe(f) ? `${elementType(f)} | undefined` : elementType(f);
}

function zero(f) {
  if (f.repeated) return "[]";
  if (isMaybe(f)) return "undefined";
  if (f.message) return `${tsName(f.message)}.create()`;
  if (f.enumType) return "0";
  if (f.scalar === "bytes") return "EMPTY_BYTES";
  if (f.scalar === "string") return '""';
  if (f.scalar === "bool") return "false";
  return f.isBigint ? "0n" : "0";
}

function scalarCall(f) {
  if (f.enumType) return "int32";
  return f.isBigint ? (f.scalar === "uint64" ? "uint64n" : "int64n") : f.scalar;
}

function writeCall(f) {
  const call = scalarCall(f);
  return call === "uint64n" ? "int64n" : call;
}

function docComment(text, indent, fallback) {
  const lines = (text ?? fallback ?? "").trim();
  if (!lines) return "";
  const parts = lines.split("\n").map((line) => line.trim());
  if (parts.length === 1) return `${indent}/** ${parts[0]} */\n`;
  return `${indent}/**\n${parts.map((line) => `${indent} * ${line}`.trimEnd()).join("\n")}\n${indent} */\n`;
}

class FileWriter {
  constructor(output) {
    this.output = output;
    this.isServer = output.file.startsWith("packages/server/");
    this.runtimeValues = new Set();
    this.runtimeTypes = new Set();
    this.imports = new Map();
    this.body = [];
  }

  runtime(name) {
    this.runtimeValues.add(name);
    return name;
  }

  /** The TypeScript name of a message or enum, imported when another file has it. */
  use(type, { typeOnly = false } = {}) {
    const home = fileOf.get(type) ?? fileOf.get(type.parent);
    const name = tsName(type);
    if (home !== this.output) {
      const names = this.imports.get(home) ?? new Map();
      names.set(name, (names.get(name) ?? true) && typeOnly);
      this.imports.set(home, names);
    }
    return name;
  }

  isLocal(type) {
    return (fileOf.get(type) ?? fileOf.get(type.parent)) === this.output;
  }

  enum(type) {
    const name = tsName(type);
    const values = Object.entries(type.values);
    const lines = [docComment(type.comment, "", `\`${typeName(type)}\``)];
    lines.push(`export const ${name} = {\n`);
    for (const [value, number] of values) {
      lines.push(docComment(type.comments?.[value], "  "), `  ${enumKey(value)}: ${number},\n`);
    }
    lines.push("} as const;\n");
    lines.push("/** Any number: a peer may know more values than we do. */\n");
    lines.push(`export type ${name} = number;\n`);
    lines.push(`/** Names of {@link ${name}} as the .proto file spells them. */\n`);
    this.runtimeTypes.add("EnumInfo");
    lines.push(`export const ${name}Info: EnumInfo = {\n  typeName: "${typeName(type)}",\n`);
    lines.push(`  numberOf: { ${values.map(([v, n]) => `${v}: ${n}`).join(", ")} },\n`);
    lines.push(`  nameOf: { ${values.map(([v, n]) => `${n}: "${v}"`).join(", ")} },\n};\n`);
    this.body.push(lines.join(""));
  }

  message(type, isRecursive) {
    const name = tsName(type);
    const fields = type.fieldsArray.map(describe);
    const oneofs = new Map();
    for (const f of fields) {
      if (f.message) this.use(f.message);
      if (f.enumType) this.use(f.enumType, { typeOnly: false });
      if (f.oneof) oneofs.set(f.oneof.key, [...(oneofs.get(f.oneof.key) ?? []), f]);
    }
    this.interface(type, name, fields, oneofs);
    this.writeFunction(name, fields, oneofs);
    this.readFunction(type, name, fields, isRecursive);
    this.codec(type, name, fields, oneofs);
  }

  interface(type, name, fields, oneofs) {
    const lines = [docComment(type.comment, "", `\`${typeName(type)}\``)];
    if (fields.length === 0) {
      lines.push(`export type ${name} = Record<never, never>;\n`);
      this.body.push(lines.join(""));
      return;
    }
    lines.push(`export interface ${name} {\n`);
    const seen = new Set();
    for (const f of fields) {
      if (!f.oneof) {
        lines.push(docComment(f.comment, "  "), `  ${f.key}: ${fieldType(f)};\n`);
      } else if (!seen.has(f.oneof.key)) {
        seen.add(f.oneof.key);
        lines.push(`  ${f.oneof.key}:\n`);
        for (const member of oneofs.get(f.oneof.key)) {
          lines.push(`    | { kind: "${member.key}"; value: ${elementType(member)} }\n`);
        }
        lines.push("    | undefined;\n");
      }
    }
    lines.push("}\n");
    this.body.push(lines.join(""));
  }

  writeTag(f, wire) {
    const tag = tagOf(f, wire);
    return tag < 0x80 ? `w.byte(${tag});` : `w.varint(${tag});`;
  }

  writeMessage(f, value, indent) {
    const inner = this.isLocal(f.message)
      ? `write${tsName(f.message)}(w, ${value});`
      : `${tsName(f.message)}.write(w, ${value});`;
    return [
      `${indent}at = w.size();`,
      `${indent}${inner}`,
      `${indent}w.varint(w.size() - at);`,
      `${indent}${this.writeTag(f)}`,
    ];
  }

  writeValue(f, value, indent) {
    if (f.message) return this.writeMessage(f, value, indent);
    return [`${indent}w.${writeCall(f)}(${value});`, `${indent}${this.writeTag(f)}`];
  }

  writeFunction(name, fields, oneofs) {
    this.runtimeTypes.add("Init");
    this.runtimeTypes.add("Writer");
    const lines = [];
    let needsAt = false;
    // Backwards: the highest number first. The members of a oneof may be written at the place of any of them.
    const order = [...fields].sort((a, b) => b.number - a.number);
    const doneOneofs = new Set();
    for (const f of order) {
      if (f.message || f.packed) needsAt = true;
      if (f.oneof) {
        if (doneOneofs.has(f.oneof.key)) continue;
        doneOneofs.add(f.oneof.key);
        const members = oneofs.get(f.oneof.key);
        const numbers = members.map((m) => m.number);
        const low = Math.min(...numbers);
        const high = Math.max(...numbers);
        if (fields.some((g) => !members.includes(g) && g.number > low && g.number < high)) {
          throw new Error(`${name}: oneof ${f.oneof.name} is mixed with other fields`);
        }
        const local = `${f.oneof.key}Choice`;
        lines.push(`  const ${local} = m.${f.oneof.key};`);
        lines.push(`  if (${local} !== undefined) {`);
        lines.push(`    switch (${local}.kind) {`);
        for (const member of members) {
          lines.push(`      case "${member.key}": {`);
          if (member.message) needsAt = true;
          lines.push(...this.writeValue(member, `${local}.value`, "        "));
          lines.push("        break;", "      }");
        }
        lines.push("    }", "  }");
        continue;
      }
      const access = `m.${f.key}`;
      if (f.repeated) {
        lines.push(`  const ${f.key} = ${access};`);
        lines.push(`  if (${f.key} !== undefined && ${f.key}.length > 0) {`);
        if (f.packed) lines.push("    at = w.size();");
        lines.push(`    for (let i = ${f.key}.length - 1; i >= 0; i--) {`);
        const element = `${f.key}[i] as ${f.message ? `Init<${elementType(f)}>` : elementType(f)}`;
        if (f.packed) lines.push(`      w.${writeCall(f)}(${element});`);
        else lines.push(...this.writeValue(f, element, "      "));
        lines.push("    }");
        if (f.packed) lines.push("    w.varint(w.size() - at);", `    ${this.writeTag(f, 2)}`);
        lines.push("  }");
        continue;
      }
      if (f.message) {
        if (f.always) {
          lines.push(...this.writeMessage(f, `${access} ?? {}`, "  "));
        } else {
          lines.push(`  const ${f.key} = ${access};`);
          lines.push(`  if (${f.key} !== undefined) {`);
          lines.push(...this.writeMessage(f, f.key, "    "));
          lines.push("  }");
        }
        continue;
      }
      if (f.always) {
        const fallback = zero({ ...f, presence: false });
        if (fallback === "EMPTY_BYTES") this.runtime("EMPTY_BYTES");
        lines.push(`  w.${writeCall(f)}(${access} ?? ${fallback});`, `  ${this.writeTag(f)}`);
        continue;
      }
      lines.push(`  const ${f.key} = ${access};`);
      let test = `${f.key} !== undefined`;
      if (!f.presence) {
        if (f.scalar === "bytes") test += ` && ${f.key}.length > 0`;
        else if (f.scalar === "bool") test = `${f.key} === true`;
        else test += ` && ${f.key} !== ${zero(f)}`;
      }
      lines.push(`  if (${test}) {`);
      lines.push(...this.writeValue(f, f.key, "    "));
      lines.push("  }");
    }
    const unused = fields.length === 0 ? "_" : "";
    this.body.push(
      `function write${name}(${unused}w: Writer, ${unused}m: Init<${name}>): void {\n` +
        (needsAt ? "  let at = 0;\n" : "") +
        (lines.length > 0 ? `${lines.join("\n")}\n` : "") +
        "}\n",
    );
  }

  readFunction(type, name, fields, isRecursive) {
    this.runtimeTypes.add("Reader");
    const lines = [];
    const declared = new Set();
    for (const f of fields) {
      if (f.oneof) {
        if (declared.has(f.oneof.key)) continue;
        declared.add(f.oneof.key);
        lines.push(`  let ${f.oneof.key}: ${name}["${f.oneof.key}"];`);
      } else if (f.repeated) {
        lines.push(`  const ${f.key}: ${elementType(f)}[] = [];`);
      } else if (f.message) {
        lines.push(`  let ${f.key}: ${elementType(f)} | undefined;`);
      } else if (isMaybe(f)) {
        lines.push(`  let ${f.key}: ${fieldType(f)};`);
      } else {
        const start = zero(f);
        if (start === "EMPTY_BYTES") this.runtime("EMPTY_BYTES");
        const annotation = f.scalar === "bytes" ? ": Uint8Array" : "";
        lines.push(`  let ${f.key}${annotation} = ${start};`);
      }
    }
    if (isRecursive) lines.push("  r.deeper();");
    lines.push("  while (r.pos < end) {", "    const tag = r.tag();", "    switch (tag) {");
    const inNumberOrder = [...fields].sort((a, b) => a.number - b.number);
    for (const f of inNumberOrder) {
      const read = f.message
        ? this.isLocal(f.message)
          ? `read${tsName(f.message)}(r, r.end())`
          : `${tsName(f.message)}.read(r, r.end())`
        : `r.${scalarCall(f)}()`;
      lines.push(`      case ${tagOf(f)}:`);
      if (f.oneof) lines.push(`        ${f.oneof.key} = { kind: "${f.key}", value: ${read} };`);
      else if (f.repeated) lines.push(`        ${f.key}.push(${read});`);
      else if (f.message) {
        this.runtime("readAgain");
        lines.push(
          `        ${f.key} = ${f.key} === undefined ? ${read} : readAgain(${tsName(f.message)}, ${f.key}, r, r.end());`,
        );
      } else lines.push(`        ${f.key} = ${read};`);
      lines.push("        break;");
      if (f.repeated && wireType(f) === 0) {
        lines.push(`      case ${tagOf(f, 2)}: {`);
        lines.push(
          "        const stop = r.end();",
          `        while (r.pos < stop) ${f.key}.push(${read});`,
          "        r.done(stop);",
        );
        lines.push("        break;", "      }");
      }
    }
    const known = knownTest(inNumberOrder.map((f) => f.number));
    lines.push("      default:", `        r.unexpected(tag, ${known}, "${typeName(type)}");`, "    }", "  }");
    lines.push("  r.done(end);");
    if (isRecursive) lines.push("  r.depth--;");
    const properties = [];
    const named = new Set();
    for (const f of fields) {
      const key = f.oneof ? f.oneof.key : f.key;
      if (named.has(key)) continue;
      named.add(key);
      if (f.message && !f.repeated && !f.oneof && f.always) {
        properties.push(
          f.emptyIsAbsent
            ? `${key}: ${key} === undefined || isEmpty${tsName(f.message)}(${key}) ? undefined : ${key}`
            : `${key}: ${key} ?? ${tsName(f.message)}.create()`,
        );
      } else properties.push(key);
    }
    const result = `  return { ${properties.join(", ")} };`;
    lines.push(result.length <= 118 ? result : `  return {\n${properties.map((p) => `    ${p},\n`).join("")}  };`);
    this.body.push(
      `function read${name}(r: Reader, end: number): ${name} {\n${lines.join("\n").replace("return {  }", "return {}")}\n}\n`,
    );
    for (const f of fields) {
      if (f.emptyIsAbsent && this.isLocal(f.message)) this.emptyTest(f.message);
    }
  }

  /** Whether a message says nothing: what proto2 encoders of old write for one that is not there. */
  emptyTest(type) {
    const name = tsName(type);
    if (this.body.some((text) => text.startsWith(`function isEmpty${name}(`))) return;
    const conditions = type.fieldsArray.map(describe).map((f) => {
      if (f.repeated) return `m.${f.key}.length === 0`;
      if (f.message && !isMaybe(f)) {
        this.emptyTest(f.message);
        return `isEmpty${tsName(f.message)}(m.${f.key})`;
      }
      return `m.${f.key} === ${zero(f)}`;
    });
    this.body.push(
      `function isEmpty${name}(m: ${name}): boolean {\n  return (\n    ${conditions.join(" &&\n    ")}\n  );\n}\n`,
    );
  }

  codec(type, name, fields, oneofs) {
    this.runtimeTypes.add("Codec");
    this.runtime("encodeWith");
    this.runtime("decodeWith");
    const lines = [`/** Makes, writes and reads {@link ${name}}. */\n`];
    lines.push(`export const ${name}: Codec<${name}> = {\n  typeName: "${typeName(type)}",\n`);
    lines.push(fields.length === 0 ? "  fields: [],\n" : "  fields: [\n");
    for (const f of fields) {
      const parts = [
        `name: "${f.name}"`,
        `jsonName: "${f.json}"`,
        `key: "${f.key}"`,
        `number: ${f.number}`,
        `type: "${f.message ? "message" : f.enumType ? "enum" : f.scalar}"`,
        `isBigint: ${f.isBigint}`,
        `isRepeated: ${f.repeated}`,
        `hasPresence: ${f.presence}`,
        `oneof: ${f.oneof ? `"${f.oneof.key}"` : "undefined"}`,
        `enum: ${f.enumType ? this.enumInfo(f.enumType) : "undefined"}`,
        `message: ${f.message ? `() => ${tsName(f.message)} as Codec<unknown>` : "undefined"}`,
      ];
      lines.push(`    { ${parts.join(", ")} },\n`);
    }
    if (fields.length > 0) lines.push("  ],\n");
    const created = [];
    const seen = new Set();
    for (const f of fields) {
      if (f.oneof) {
        if (seen.has(f.oneof.key)) continue;
        seen.add(f.oneof.key);
        const members = oneofs.get(f.oneof.key);
        const name2 = `create${name}${pascal(f.oneof.key)}`;
        created.push(`    ${f.oneof.key}: ${name2}(init.${f.oneof.key}),\n`);
        const cases = members.map((m) =>
          m.message
            ? `    case "${m.key}":\n      return { kind: "${m.key}", value: ${tsName(m.message)}.create(init.value) };\n`
            : "",
        );
        const simple = members.every((m) => !m.message);
        this.body.push(
          simple
            ? `function ${name2}(init: Init<${name}>["${f.oneof.key}"]): ${name}["${f.oneof.key}"] {\n  return init === undefined ? undefined : ({ ...init } as ${name}["${f.oneof.key}"]);\n}\n`
            : `function ${name2}(init: Init<${name}>["${f.oneof.key}"]): ${name}["${f.oneof.key}"] {\n  switch (init?.kind) {\n${cases.join("")}    default:\n      return undefined;\n  }\n}\n`,
        );
        continue;
      }
      if (f.repeated) {
        created.push(
          f.message
            ? `    ${f.key}: init.${f.key}?.map((each) => ${tsName(f.message)}.create(each)) ?? [],\n`
            : `    ${f.key}: init.${f.key} ? [...init.${f.key}] : [],\n`,
        );
      } else if (f.message) {
        created.push(
          isMaybe(f)
            ? `    ${f.key}: init.${f.key} === undefined ? undefined : ${tsName(f.message)}.create(init.${f.key}),\n`
            : `    ${f.key}: ${tsName(f.message)}.create(init.${f.key}),\n`,
        );
      } else {
        const fallback = zero(f);
        if (fallback === "EMPTY_BYTES") this.runtime("EMPTY_BYTES");
        created.push(
          fallback === "undefined" ? `    ${f.key}: init.${f.key},\n` : `    ${f.key}: init.${f.key} ?? ${fallback},\n`,
        );
      }
    }
    lines.push(
      created.length === 0
        ? "  create: () => ({}),\n"
        : `  create: (init: Init<${name}> = {}): ${name} => ({\n${created.join("")}  }),\n`,
    );
    lines.push(`  encode: (init: Init<${name}>): Uint8Array => encodeWith(${name}, init),\n`);
    lines.push(`  decode: (bytes: Uint8Array): ${name} => decodeWith(${name}, bytes),\n`);
    lines.push(`  write: write${name},\n  read: read${name},\n};\n`);
    this.body.push(lines.join(""));
  }

  enumInfo(type) {
    const info = `${tsName(type)}Info`;
    if (!this.isLocal(type)) {
      const names = this.imports.get(fileOf.get(type) ?? fileOf.get(type.parent));
      names.set(info, false);
    }
    return info;
  }

  service(type) {
    const lines = [docComment(type.comment, "", `\`${typeName(type)}\``)];
    lines.push(`export const ${type.name} = {\n  typeName: "${typeName(type)}",\n  methods: {\n`);
    for (const method of type.methodsArray) {
      const kind = method.requestStream
        ? method.responseStream
          ? "bidi"
          : "clientStream"
        : method.responseStream
          ? "serverStream"
          : "unary";
      const request = this.use(method.resolvedRequestType);
      const response = this.use(method.resolvedResponseType);
      const http = method.parsedOptions?.find((o) => o["(google.api.http)"])?.["(google.api.http)"];
      const routes = http ? [http.post, ...[http.additional_bindings ?? []].flat().map((b) => b.post)] : [];
      lines.push(docComment(method.comment, "    "));
      lines.push(
        `    ${camel(method.name)}: {\n      name: "${method.name}",\n      path: "/${typeName(type)}/${method.name}",\n`,
      );
      lines.push(`      kind: "${kind}",\n      request: ${request},\n      response: ${response},\n`);
      lines.push(`      routes: [${routes.map((r) => `"${r}"`).join(", ")}],\n    },\n`);
    }
    lines.push("  },\n} as const satisfies ServiceInfo;\n");
    this.runtimeTypes.add("ServiceInfo");
    this.body.push(lines.join(""));
  }

  text() {
    const head = [
      `// Generated by scripts/generate-wire.mjs from ${this.output.from.map((f) => `proto/${f}`).join(" and ")}. Do not edit.\n`,
    ];
    const runtimePath = this.isServer ? "@etcd-ts/client/wire" : "../runtime.ts";
    const used = this.body.join("\n");
    const values = [...this.runtimeValues].sort();
    const types = [...this.runtimeTypes].filter((t) => new RegExp(`\\b${t}\\b`).test(used)).sort();
    const lines = new Map();
    const add = (from, name) => lines.set(from, [...(lines.get(from) ?? []), name]);
    for (const [home, names] of this.imports) {
      const homeIsServer = home.file.startsWith("packages/server/");
      const from = this.isServer && !homeIsServer ? "@etcd-ts/client/wire" : `./${path.basename(home.file)}`;
      for (const [name, typeOnly] of names) {
        if (new RegExp(`\\b${name}\\b`).test(used)) add(from, typeOnly ? `type ${name}` : name);
      }
    }
    for (const t of types) add(t === "ServiceInfo" ? "../services.ts" : runtimePath, `type ${t}`);
    for (const v of values) add(runtimePath, v);
    const bare = (n) => n.replace("type ", "");
    for (const [from, names] of [...lines].sort(([a], [b]) => (a < b ? -1 : 1))) {
      const sorted = [...new Set(names)].sort((a, b) => (bare(a) < bare(b) ? -1 : 1));
      head.push(`import {\n${sorted.map((n) => `  ${n},\n`).join("")}} from "${from}";\n`);
    }
    return `${head.join("")}\n${used}`;
  }
}

function knownTest(numbers) {
  if (numbers.length === 0) return "false";
  const runs = [];
  for (const n of numbers) {
    const last = runs.at(-1);
    if (last && last[1] === n - 1) last[1] = n;
    else runs.push([n, n]);
  }
  return runs
    .map(([a, b]) =>
      a === b
        ? `tag >>> 3 === ${a}`
        : a === 1
          ? `(tag >= 8 && tag < ${(b + 1) * 8})`
          : `(tag >= ${a * 8} && tag < ${(b + 1) * 8})`,
    )
    .join(" || ");
}

/** Messages that can hold themselves, at any distance. */
function recursiveMessages(tree) {
  const messages = [];
  const visit = (node) => {
    if (node instanceof protobuf.Type) messages.push(node);
    for (const child of node.nestedArray ?? []) visit(child);
  };
  visit(tree);
  const reaches = (from, target, seen) =>
    from.fieldsArray.some((f) => {
      const next = f.resolvedType;
      if (!(next instanceof protobuf.Type)) return false;
      if (next === target) return true;
      if (seen.has(next)) return false;
      seen.add(next);
      return reaches(next, target, seen);
    });
  return new Set(messages.filter((m) => reaches(m, m, new Set())));
}

/** Every generated file with its text. */
export function generate() {
  const tree = load();
  const recursive = recursiveMessages(tree);
  return OUTPUTS.map((output) => {
    const writer = new FileWriter(output);
    const visit = (node) => {
      for (const child of node.nestedArray ?? []) {
        if (
          child instanceof protobuf.Namespace &&
          !(child instanceof protobuf.Type) &&
          !(child instanceof protobuf.Service)
        ) {
          visit(child);
          continue;
        }
        if (fileOf.get(child) !== output) continue;
        if (child instanceof protobuf.Enum) writer.enum(child);
        else if (child instanceof protobuf.Type) {
          for (const nested of child.nestedArray) if (nested instanceof protobuf.Enum) writer.enum(nested);
          writer.message(child, recursive.has(child));
        }
      }
    };
    visit(tree);
    const services = (node) => {
      for (const child of node.nestedArray ?? []) {
        if (child instanceof protobuf.Service) {
          if (fileOf.get(child) === output) writer.service(child);
        } else services(child);
      }
    };
    services(tree);
    return { file: output.file, text: writer.text() };
  });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const isCheck = process.argv.includes("--check");
  let stale = 0;
  for (const { file, text } of generate()) {
    const full = path.join(root, file);
    const before = fs.existsSync(full) ? fs.readFileSync(full, "utf8") : undefined;
    if (before === text) continue;
    stale++;
    if (isCheck) process.stdout.write(`${file}: not what proto/ says; run node scripts/generate-wire.mjs\n`);
    else {
      fs.mkdirSync(path.dirname(full), { recursive: true });
      fs.writeFileSync(full, text);
    }
  }
  if (!isCheck) process.stdout.write(`${stale} files written\n`);
  process.exit(isCheck && stale > 0 ? 1 : 0);
}
