/**
 * Our `db.lmdb`: both meta pages, every page of every tree, the free pages, the checksum of each row, and the index
 * tables against `key`. A bit that is not covered by any of these is in a free page, behind the rows of a page, or in a
 * number that nothing reads.
 */
import path from "node:path";
import os from "node:os";
import { utf8Bytes } from "../../../lib/bytes.ts";
import { crc32c } from "../../../lib/crc32c.ts";
import { hasRightSum, SUM_BYTES, SUMS_MARK } from "../../backend/sums.ts";
import { BUCKETS, TABLES } from "../../backend/types.ts";
import { systemFiles } from "../../file-system.ts";
import { LmdbFileError, type TreeRecord } from "../../lmdb/format.ts";
import { LmdbFile, TreeCursor } from "../../lmdb/walk.ts";
import { INDEX_MARKER_KEY } from "../../schema/index-rows.ts";
import { isLongNameKey, nameOfRow } from "../../schema/names.ts";
import { ListCursor } from "../../rows.ts";
import { IndexBuilder, type IndexTable, type IndexTarget } from "../index-build.ts";
import { isDamage } from "../store.ts";
import type { DatabaseContent } from "./bolt-file.ts";
import type { Report } from "./report.ts";
import { nameOfRowAt, newRowFacts, type RowFacts, takeRow, verifyFacts } from "./rows.ts";

const REBUILD = "the index follows from the keys: `etcdutl migrate --to bbolt`, then `--to lmdb`, makes it anew";
const LOST = "lost to this member: restore a snapshot, or remove the member and add it anew";

export async function verifyLmdbFile(
  file: string,
  report: Report,
  onProgress: (bytesRead: number) => void,
): Promise<DatabaseContent | undefined> {
  let lmdb: LmdbFile;
  try {
    lmdb = new LmdbFile(file);
  } catch (error) {
    report.add("lost", file, (error as Error).message, `the whole database is ${LOST}`);
    return undefined;
  }
  const check = new LmdbCheck(file, lmdb, report, onProgress);
  try {
    check.metas();
    check.pages();
    await check.indexes();
    verifyFacts(file, check.facts, report);
    return { facts: check.facts, sizeBytes: lmdb.sizeBytes, hash: check.hash };
  } finally {
    lmdb.close();
  }
}

class LmdbCheck {
  readonly #path: string;
  readonly #file: LmdbFile;
  readonly #report: Report;
  readonly #onProgress: (bytesRead: number) => void;
  readonly #used: Uint8Array;
  readonly facts: RowFacts = newRowFacts();
  hash: number | undefined = 0;
  #keysAreSound = true;

  constructor(path_: string, file: LmdbFile, report: Report, onProgress: (bytesRead: number) => void) {
    this.#path = path_;
    this.#file = file;
    this.#report = report;
    this.#onProgress = onProgress;
    this.#used = new Uint8Array(Math.ceil((Math.min(file.meta.lastPage, file.pages.fileBytes / 512) + 1) / 8) + 1);
    this.#mark(0, 2, "meta");
  }

  #repairable(problem: string, consequence: string): void {
    this.#report.add("repairable", this.#path, problem, consequence);
  }

  #lost(problem: string, consequence = `what hangs below it is ${LOST}`): void {
    this.#report.add("lost", this.#path, problem, consequence);
  }

  metas(): void {
    const { both, newest } = this.#file.metas;
    const rewrite = "`etcdutl defrag` writes the file anew";
    for (const [number, meta] of both.entries()) {
      if (!meta) {
        this.#repairable(`meta page ${number} is damaged; the other one is whole`, rewrite);
        continue;
      }
      if (meta.transaction > 1 && meta.transaction % 2 !== number) {
        this.#repairable(`meta page ${number} has transaction ${meta.transaction}`, rewrite);
      }
      if (meta.address !== 0n || (meta.free.flags & ~0x4000) !== 8 || meta.names.flags !== 0 || meta.names.pad !== 0) {
        this.#repairable(`meta page ${number} has settings that this server does not write`, rewrite);
      }
      if (meta.free.pad !== this.#file.pageBytes)
        this.#repairable(`meta page ${number} has another page size`, rewrite);
    }
    const [first, second] = both;
    if (first && second) {
      const older = newest === first ? second : first;
      if (newest.transaction > 1 && older.transaction !== newest.transaction - 1) {
        this.#repairable(`the meta pages have transactions ${first.transaction} and ${second.transaction}`, rewrite);
      }
    }
    if (newest.lastPage * this.#file.pageBytes > this.#file.pages.fileBytes + 2 ** 32) {
      this.#repairable(`the last page is ${newest.lastPage}, far behind the end of the file`, rewrite);
    }
  }

  /** All trees: of free pages, of names, of each table. */
  pages(): void {
    this.#walk("free pages", this.#file.meta.free, (cursor) => this.#takeFree(cursor));
    this.#walk("names", this.#file.meta.names, () => {});
    const expected = new Set<string>([...TABLES, ...(this.#file.hasSums ? [SUMS_MARK] : [])]);
    for (const name of this.#file.tables.keys()) {
      if (!expected.has(name)) this.#lost(`a table ${JSON.stringify(name)} that this server does not make`);
      expected.delete(name);
    }
    for (const name of expected) this.#lost(`the table "${name}" is missing`);
    for (const [name, tree] of this.#file.tables) {
      const bucket = (BUCKETS as readonly string[]).includes(name);
      if (bucket && this.hash !== undefined) this.hash = crc32c(utf8Bytes(name), this.hash);
      const sound = this.#walk(name, tree, (cursor) => {
        if (bucket) this.#takeRow(name, cursor);
      });
      if (name === "key" && !sound) this.#keysAreSound = false;
      if (bucket && !sound) this.hash = undefined;
    }
    for (const page of this.#free) {
      if (this.#isMarked(page)) {
        this.#repairable(
          `page ${page} is in use and listed as free`,
          "do not start the server on it, which would write over that page; `etcdutl defrag` writes the file anew",
        );
      }
    }
  }

  readonly #free: number[] = [];

  /** A record lists pages: a count, then numbers; a negative one is the length of a run that begins at the next. */
  #takeFree(cursor: TreeCursor): void {
    const { value } = cursor;
    let run = 1;
    for (let at = 8; at + 8 <= value.length; at += 8) {
      const number = Number(value.readBigInt64LE(at));
      if (number === 0) continue;
      if (number < 0) {
        run = -number;
        continue;
      }
      if (number < 2 || number + run - 1 > this.#file.meta.lastPage) {
        this.#repairable(
          `the list of free pages names ${run} from ${number} on`,
          "`etcdutl defrag` writes the file anew",
        );
      } else for (let page = number; page < number + run; page++) this.#free.push(page);
      run = 1;
    }
  }

  #isMarked(page: number): boolean {
    return ((this.#used[page >>> 3] as number) & (1 << (page & 7))) !== 0;
  }

  #mark(page: number, count: number, what: string): void {
    for (let n = page; n < page + count; n++) {
      if (this.#isMarked(n)) throw new LmdbFileError(`page ${n}: belongs to two places, one of them "${what}"`);
      this.#used[n >>> 3] = (this.#used[n >>> 3] as number) | (1 << (n & 7));
    }
  }

  /** False when the tree cannot be walked to its end. */
  #walk(name: string, tree: TreeRecord, take: (cursor: TreeCursor) => void): boolean {
    const isIndex = name === "live" || name === "past" || name === "leased";
    const cursor = new TreeCursor(this.#file, tree, 0, name, (page, count) => this.#mark(page, count, name));
    try {
      while (cursor.next()) {
        take(cursor);
        this.#onProgress(this.#file.pages.bytesRead);
      }
    } catch (error) {
      if (!isDamage(error)) throw error;
      if (isIndex) this.#repairable(`"${name}": ${error.message}`, REBUILD);
      else if (name === "free pages") this.#repairable(error.message, "`etcdutl defrag` writes the file anew");
      else {
        this.#lost(
          `"${name}": ${error.message}`,
          `the rows of "${name}" from the ${ordinal(cursor.entries + 1)} on are ${LOST}`,
        );
      }
      return false;
    }
    const isRight =
      cursor.entries === tree.entries &&
      cursor.branchPages === tree.branchPages &&
      cursor.leafPages === tree.leafPages &&
      cursor.overflowPages === tree.overflowPages &&
      cursor.depth === tree.depth &&
      (name === "free pages" || name === "names" || (tree.flags === 0 && tree.pad === 0));
    if (!isRight) {
      const [said, found] = [tree.entries, cursor.entries];
      if (said > found && !isIndex && name !== "free pages") {
        this.#lost(`"${name}" has ${found} rows, and its record says ${said}`, `the rows that are missing are ${LOST}`);
      } else {
        this.#repairable(`"${name}" is not as its record describes it`, "`etcdutl defrag` writes the file anew");
      }
    }
    return true;
  }

  #takeRow(table: string, cursor: TreeCursor): void {
    const { key, value: stored } = cursor;
    const hasSum = this.#file.sumBytes(table) > 0;
    const value = hasSum ? stored.subarray(0, Math.max(0, stored.length - SUM_BYTES)) : stored;
    if (hasSum && !hasRightSum(key, stored)) {
      const place = cursor.longPage === undefined ? `page ${cursor.page}` : `page ${cursor.longPage}`;
      this.#lost(
        `${nameOfRowAt(table, key, value)} is damaged (${place}): its checksum is wrong`,
        `this row is ${LOST}`,
      );
      if (table === "key") this.#keysAreSound = false;
      this.facts.rows++;
      return;
    }
    if (this.hash !== undefined) this.hash = crc32c(value, crc32c(key, this.hash));
    const isName = table === "authUsers" || table === "authRoles";
    const name = isName && isLongNameKey(key) ? nameOfRow(table as "authUsers", key, value) : key;
    const row = new ListCursor([[name, value]]);
    row.next();
    const problem = takeRow(table, row, this.facts);
    if (problem !== undefined) this.#lost(`${nameOfRowAt(table, key, value)}: ${problem}`, `this row is ${LOST}`);
  }

  /** Builds the index tables from `key` once more, and compares. */
  async indexes(): Promise<void> {
    if (!this.#keysAreSound) {
      this.#report.add("note", this.#path, "the index was not compared", "the keys are damaged");
      return;
    }
    const marker = this.#file.rawCursor("past");
    try {
      if (!marker.next() || !marker.key.equals(INDEX_MARKER_KEY)) {
        this.#report.add("note", this.#path, "the index is not complete", "the next start makes it anew");
        return;
      }
    } catch (error) {
      if (isDamage(error)) return;
      throw error;
    }
    const builder = new IndexBuilder(path.join(os.tmpdir(), `etcdutl-verify-${process.pid}`), systemFiles);
    const tables = new Map<string, ComparedTable>();
    try {
      const rows = this.#file.cursor("key");
      while (rows.next()) {
        builder.add(rows);
        if (!builder.hasRoom()) await builder.makeRoom();
      }
      const comparing: IndexTarget = {
        table: (name) => {
          const table = new ComparedTable(this.#path, name, (problem) => this.#repairable(problem, REBUILD));
          tables.set(name, table);
          return table;
        },
        output: { isFull: false, drain: async () => {} },
      };
      await builder.write(comparing);
    } catch (error) {
      if (!isDamage(error)) throw error;
      this.#repairable(`the index cannot be read: ${error.message}`, REBUILD);
    } finally {
      for (const table of tables.values()) table.close();
      await builder.close();
    }
  }
}

function ordinal(n: number): string {
  const ending = n % 100 > 10 && n % 100 < 14 ? "th" : (["th", "st", "nd", "rd"][n % 10] ?? "th");
  return `${n}${ending}`;
}

/** Takes the rows that should be there, and says which are not. */
class ComparedTable implements IndexTable {
  readonly #file: LmdbFile;
  readonly #rows: TreeCursor;
  readonly #name: string;
  readonly #tell: (problem: string) => void;
  #isDone = false;

  constructor(path_: string, name: string, tell: (problem: string) => void) {
    // Files of their own: two cursors cannot share the memory of one.
    this.#file = new LmdbFile(path_);
    this.#rows = this.#file.rawCursor(name);
    this.#name = name;
    this.#tell = tell;
  }

  putRange(keyIn: Buffer, keyAt: number, keyEnd: number, valueIn: Buffer, valueAt: number, valueEnd: number): void {
    this.put(keyIn.subarray(keyAt, keyEnd), valueIn.subarray(valueAt, valueEnd));
  }

  put(key: Uint8Array, value: Uint8Array): void {
    if (this.#isDone) return;
    const rows = this.#rows;
    if (rows.next() && rows.key.equals(key) && rows.value.equals(value)) return;
    // What follows a missing or wrong row cannot be told from it; one is enough to make the index anew.
    this.#isDone = true;
    this.#tell(`"${this.#name}" does not fit the keys, from its ${ordinal(Math.max(1, rows.entries))} row on`);
  }

  finish(): void {
    if (!this.#isDone && this.#rows.next()) this.#tell(`"${this.#name}" has rows of keys that are not there`);
    this.#isDone = true;
  }

  close(): void {
    this.#file.close();
  }
}
