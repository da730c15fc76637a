/**
 * Golden scripts: commands in, full trace out. Each block of testdata/*.txt is a scenario on an empty store; rewritten by
 * UPDATE_GOLDEN=1, then reviewed as a diff.
 */
import fs from "node:fs";
import { fileURLToPath } from "node:url";
import { EtcdError, type KeyValue, PutRequest, RangeRequest } from "@etcd-ts/client/wire";
import { describe, expect, it } from "vitest";
import { type KeyString, keyBytes, keyString } from "../lib/bytes.ts";
import {
  decodeLiveRow,
  decodePastRow,
  isTombstoneKey,
  mainOfPastKey,
  mainOfRevisionKey,
  prefixOfPastKey,
  readKeyValue,
  subOfPastKey,
  subOfRevisionKey,
  userKeyOfPastPrefix,
} from "../storage/index.ts";
import { Harness } from "./testing/harness.ts";
import type { WatchStream } from "./watch/stream.ts";

interface Command {
  readonly name: string;
  readonly words: readonly string[];
  readonly options: Readonly<Record<string, string>>;
}

function parse(line: string): Command {
  const [name = "", ...rest] = line.split(" ");
  const options: Record<string, string> = {};
  const words: string[] = [];
  for (const part of rest) {
    const at = part.indexOf("=");
    if (at > 0) options[part.slice(0, at)] = part.slice(at + 1);
    else words.push(part);
  }
  return { name, words, options };
}

/** `\0` and `\xff` stand for those bytes; `a*2000` repeats. */
function bytes(text = ""): Buffer {
  const repeated = text.replace(/(\S)\*(\d+)/g, (_all, char: string, times: string) => char.repeat(Number(times)));
  const plain = repeated.replace(/\\x([0-9a-f]{2})/g, (_all, hex: string) => String.fromCharCode(parseInt(hex, 16)));
  return keyBytes(plain.replaceAll("\\0", "\0") as KeyString);
}

function shown(key: Uint8Array): string {
  const text = keyString(key).replace(/(.)\1{20,}/gs, (all, char: string) => `${char}*${all.length}`);
  return text.replaceAll("\0", "\\0").replace(/[^\x20-\x7e]/g, (c) => `\\x${c.charCodeAt(0).toString(16)}`);
}

const pair = (kv: KeyValue): string => {
  const lease = kv.lease === 0n ? "" : ` lease=${kv.lease}`;
  return `${shown(kv.key)}=${shown(kv.value)} create=${kv.createRevision} mod=${kv.modRevision} version=${kv.version}${lease}`;
};

class Script {
  readonly #harness: Harness;
  #stream: WatchStream;
  readonly #names = new Map<bigint, string>();

  constructor(harness: Harness) {
    this.#harness = harness;
    this.#stream = harness.store.watch.newStream();
  }

  async run(line: string): Promise<string[]> {
    try {
      return await this.#run(parse(line));
    } catch (error) {
      if (error instanceof EtcdError || (error instanceof Error && error.message.startsWith("mvcc:"))) {
        return [`${line}: ${error.message}`];
      }
      throw error;
    }
  }

  async #run({ name, words, options }: Command): Promise<string[]> {
    const harness = this.#harness;
    const { store } = harness;
    const id = (): bigint => [...this.#names].find(([, one]) => one === words[0])?.[0] ?? 99n;
    const key = bytes(words[0]);
    switch (name) {
      case "lease":
        harness.leases.add(BigInt(words[0] as string));
        return [];
      case "put": {
        const lease = BigInt(options["lease"] ?? 0);
        const prevKv = words.includes("prev");
        const request = PutRequest.create({ key, value: bytes(words[1]), lease, prevKv });
        const response = harness.write((tx) => store.put(tx, request));
        return [`rev=${store.currentRevision}`, ...(response.prevKv ? [`prev ${pair(response.prevKv)}`] : [])];
      }
      case "del": {
        const request = { key, rangeEnd: bytes(words[1]), prevKv: false };
        const { deleted } = harness.write((tx) => store.deleteRange(tx, request));
        return [`rev=${store.currentRevision} deleted=${deleted}`];
      }
      case "group": {
        // Several entries in one write of the backend: watchers are told at its end.
        harness.write((tx) => {
          for (const one of words) store.put(tx, PutRequest.create({ key: bytes(one), value: bytes("g") }));
        });
        return [`rev=${store.currentRevision}`];
      }
      case "revoke": {
        const keys = store.keysOfLease(BigInt(words[0] as string));
        harness.write((tx) => store.deleteKeys(tx, keys));
        return [`rev=${store.currentRevision} keys=[${keys.map(shown).join(" ")}]`];
      }
      case "compact": {
        await harness.write((tx) => store.compact(tx, Number(words[0]))).done;
        return [`compacted ${store.compactRevision}`];
      }
      case "range": {
        const response = store.range(
          RangeRequest.create({
            key,
            rangeEnd: bytes(words[1]),
            revision: Number(options["rev"] ?? 0),
            limit: Number(options["limit"] ?? 0),
          }),
        );
        return [`count=${response.count} more=${response.more}`, ...response.kvs.map((kv) => `  ${pair(kv)}`)];
      }
      case "hash": {
        const { hash, revision, compactRevision } = await store.hashKv(Number(words[0] ?? 0));
        return [`hash=${hash} rev=${revision} compact=${compactRevision}`];
      }
      case "tables":
        return this.#tables();
      case "restart":
        await harness.restart({ withoutIndex: words.includes("without-index") });
        this.#stream = harness.store.watch.newStream();
        return [`rev=${harness.store.currentRevision} compact=${harness.store.compactRevision}`];
      case "watch": {
        const watchId = this.#stream.create({
          key: bytes(options["key"]),
          rangeEnd: options["end"] === "\\0" ? new Uint8Array() : options["end"] ? bytes(options["end"]) : undefined,
          startRevision: Number(options["from"] ?? 0),
          watchId: BigInt(options["id"] ?? 0),
          noPut: words.includes("noput"),
          noDelete: words.includes("nodelete"),
          prevKv: words.includes("prev"),
        });
        this.#names.set(watchId, words[0] as string);
        return [`${words[0]} id=${watchId}`, ...this.#states()];
      }
      case "cancel":
        return [`${words[0]} ${this.#stream.cancel(id()) ? "canceled" : "unknown"}`, ...this.#states()];
      case "sync":
        store.watch.catchUpSlice();
        return this.#states();
      case "take":
        return this.#take(Number(words[0] ?? 1000));
      case "progress":
        if (words[0]) this.#stream.requestProgress(id());
        else this.#stream.requestProgressAll();
        return this.#take(1000);
      case "states":
        return this.#states();
      default:
        throw new Error(`unknown command ${name}`);
    }
  }

  #take(most: number): string[] {
    const lines: string[] = [];
    for (let i = 0; i < most; i++) {
      const delivery = this.#stream.take();
      if (!delivery) break;
      const name = delivery.watchId === -1n ? "stream" : this.#names.get(delivery.watchId);
      const events = delivery.events.map((event) => {
        const { kv, prevKv } = event;
        const prev = prevKv ? ` prev=${shown(prevKv.value)}@${prevKv.modRevision}` : "";
        return event.type === 0
          ? `PUT ${shown(kv.key)}=${shown(kv.value)} mod=${kv.modRevision}${prev}`
          : `DELETE ${shown(kv.key)} mod=${kv.modRevision}${prev}`;
      });
      const compacted = delivery.compactRevision === 0 ? "" : ` compacted=${delivery.compactRevision}`;
      lines.push(`${name} <- rev=${delivery.revision}${compacted} [${events.join(", ")}]`);
    }
    return lines.length > 0 ? lines : ["nothing"];
  }

  #states(): string[] {
    return this.#stream
      .describe()
      .map(({ watchId, state, position }) => `  ${this.#names.get(watchId) ?? watchId}: ${state} next=${position}`);
  }

  #tables(): string[] {
    const { backend } = this.#harness;
    const lines: string[] = [];
    backend.scan("key", {}, (rowKey, stored) => {
      const at = `${mainOfRevisionKey(rowKey)}.${subOfRevisionKey(rowKey)}`;
      const kv = readKeyValue(stored) as KeyValue;
      lines.push(isTombstoneKey(rowKey) ? `key    ${at} tombstone ${shown(kv.key)}` : `key    ${at} ${pair(kv)}`);
    });
    backend.scan("live", {}, (rowKey, row) => {
      const live = decodeLiveRow(row);
      const lease = live.lease === 0n ? "" : ` lease=${live.lease}`;
      const name = shown(rowKey.subarray(0, 1936)) + (rowKey.length > 1936 ? "#" : "");
      lines.push(
        `live   ${name} -> ${live.main}.${live.sub} create=${live.createRevision} version=${live.version}${lease}`,
      );
    });
    backend.scan("past", { start: Uint8Array.of(0, 1) }, (rowKey, row) => {
      const prefix = prefixOfPastKey(rowKey);
      const userKey = userKeyOfPastPrefix(prefix);
      const by = decodePastRow(row);
      const name = userKey ? shown(userKey) : `${shown(prefix.subarray(0, prefix.length - 34))}#`;
      const at = `${mainOfPastKey(rowKey)}.${subOfPastKey(rowKey)}`;
      lines.push(`past   ${name} ${at} ${by === undefined ? "tombstone" : `until ${by}`}`);
    });
    backend.scan("leased", {}, (rowKey) => {
      lines.push(`leased ${Buffer.from(rowKey).readBigInt64BE()} ${shown(rowKey.subarray(8))}`);
    });
    return lines;
  }
}

describe("golden scripts", () => {
  it.each(["index.txt", "watch.txt"])("%s gives the trace that it has", async (name) => {
    const file = fileURLToPath(new URL(`testdata/${name}`, import.meta.url));
    const text = fs.readFileSync(file, "utf8");
    const blocks: string[] = [];
    for (const block of text.trim().split(/\n\n+/)) {
      const commands = block.split("\n----")[0]?.split("\n") ?? [];
      await using harness = await Harness.open({ outboxResponsesMax: 3 });
      const script = new Script(harness);
      const trace: string[] = [];
      for (const line of commands) if (!line.startsWith("#")) trace.push(...(await script.run(line)));
      blocks.push([...commands, "----", ...trace].join("\n"));
    }
    const actual = `${blocks.join("\n\n")}\n`;
    if (process.env["UPDATE_GOLDEN"]) fs.writeFileSync(file, actual);
    else expect(actual).toBe(text);
  });
});
