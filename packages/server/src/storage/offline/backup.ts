/**
 * `backup`, etcd's old way: a copy of a stopped member for a start with `--force-new-cluster`. Membership in it is that
 * of one invented member, and what changed membership in the log has become empty entries, so that whoever starts it
 * becomes the only member of a new cluster with the old data.
 */
import fs from "node:fs";
import path from "node:path";
import { hexId, utf8Bytes } from "../../lib/bytes.ts";
import { type Clock, systemClock } from "../../lib/clock.ts";
import { crc32c } from "../../lib/crc32c.ts";
import type { Logger } from "../../lib/log.ts";
import { InternalRaftRequest, Request } from "../../pb/etcdserverpb.ts";
import { Entry, EntryType } from "../../pb/raftpb.ts";
import { BUCKETS } from "../backend/types.ts";
import type { Row } from "../bolt/index.ts";
import { type DataDirPaths, dataDirPaths } from "../data-dir.ts";
import type { FileSystem } from "../file-system.ts";
import { lockForReading } from "../lock.ts";
import { decodeV2Store, encodeV2Store, type Member, memberToJson } from "../schema/index.ts";
import { SnapStore } from "../snap/index.ts";
import { createWal, readWal, type WalContent, type WalStart } from "../wal/index.ts";
import { ListCursor } from "../rows.ts";
import { convert, tellLeftOut } from "./convert.ts";
import { counterBytes, metaKeys } from "./database-file.ts";
import { OfflineFatal } from "./errors.ts";
import { FreshMember } from "./fresh-member.ts";
import { type Job, type JobOptions, jobOf } from "./job.ts";
import { type BackendKind, backendKind, databaseFile, refuseNewerBeside } from "./member-dir.ts";
import { bytesToWrite, requireSpace } from "./space.ts";
import { type Changes, damageAsError, openStore, type Store } from "./store.ts";

export interface BackupOptions extends JobOptions {
  readonly dataDir: string;
  /** Empty: inside the data directory. */
  readonly walDir: string;
  readonly backupDir: string;
  /** Empty: inside the backup directory. */
  readonly backupWalDir: string;
  readonly withV3: boolean;
  readonly backend: BackendKind;
  readonly clock?: Clock | undefined;
  readonly logger: Logger;
}

/** The only member of the copy. The address says what its reader has to do. */
function inventedMember(clock: Clock): Member {
  // etcd's generator of ids: 40 bits of milliseconds, then a counter; the first one is the cluster's.
  const id = ((BigInt(Math.floor(clock.nowMs())) & 0xffffffffffn) << 8n) + 2n;
  return {
    id,
    name: "etcdctl-v2-backup",
    peerUrls: ["http://use-flag--force-new-cluster:2080"],
    clientUrls: [],
    isLearner: false,
  };
}

async function step<T>(message: string, run: () => Promise<T>): Promise<T> {
  try {
    return await run();
  } catch (error) {
    throw new OfflineFatal(message, error);
  }
}

/** The copy is whole and durable under its name, or not there. */
export async function backupDataDir(options: BackupOptions): Promise<void> {
  const { clock = systemClock } = options;
  const job = jobOf(options);
  const { files } = job;
  const source = dataDirPaths(options.dataDir, options.walDir);
  const target = dataDirPaths(options.backupDir, options.backupWalDir);
  const fresh = new FreshMember({ dataDir: options.backupDir, walDir: options.backupWalDir }, files);
  const member = inventedMember(clock);
  await step("failed creating backup snapshot dir", async () => requireNoMember(target));
  await step("failed creating backup snapshot dir", () => fresh.removeLeftovers());
  await step("wal.Create failed", async () => requireNoLog(target.walDir));
  if (!fs.existsSync(source.snapDir)) {
    throw new OfflineFatal(
      "saveSnap(Snapshoter.Load) failed",
      new Error(`open ${source.snapDir}: no such file or directory`),
    );
  }
  const lock = await step("failed to lock the data directory", () => lockForReading(source));
  try {
    const { snapDir, walDir } = fresh;
    await step("failed creating backup snapshot dir", async () => {
      requireBackupSpace(options, source);
      await fresh.begin();
    });
    const start = await step("saveSnap(Snapshoter.Load) failed", () =>
      copySnapFile(options, member, { from: source.snapDir, to: snapDir, files }),
    );
    const content = await step("unable to read WAL", () => readWal(source.walDir, start, { fileSystem: files }));
    await step("saveDB failed", () => copyDatabase(options, member, content, { source, snapDir, job }));
    await step("wal.Create failed", async () => {
      await fresh.prepareWal();
      await writeLog(options, content, { start, member, walDir, files });
      job.signal?.throwIfAborted();
      removeEmptyMember(target);
      await fresh.finish();
    });
  } catch (error) {
    await fresh.abandon();
    throw error;
  } finally {
    await fresh.release();
    await lock.release();
  }
}

/** A directory that somebody has made beforehand is taken when there is nothing in it. */
function requireNoMember({ memberDir, snapDir }: DataDirPaths): void {
  for (const dir of [snapDir, memberDir]) {
    if (!fs.existsSync(dir)) continue;
    const names = fs.readdirSync(dir).filter((name) => dir !== memberDir || name !== "snap");
    if (names.length > 0) throw new Error(`expected ${JSON.stringify(dir)} to be empty`);
  }
}

function requireNoLog(walDir: string): void {
  if (fs.existsSync(walDir)) throw new Error(`mkdir ${walDir}: file exists`);
}

/** What {@link requireNoMember} let pass. */
function removeEmptyMember({ memberDir, snapDir }: DataDirPaths): void {
  for (const dir of [snapDir, memberDir]) if (fs.existsSync(dir)) fs.rmdirSync(dir);
}

function requireBackupSpace(options: BackupOptions, source: DataDirPaths): void {
  let needed = 0;
  if (options.withV3) {
    const kind = backendKind(source);
    needed += bytesToWrite({ path: databaseFile(source, kind), from: kind, to: options.backend });
  }
  for (const name of fs.existsSync(source.walDir) ? fs.readdirSync(source.walDir) : []) {
    // What is allocated: a segment that is not full is mostly a hole.
    if (name.endsWith(".wal")) needed += fs.statSync(path.join(source.walDir, name)).blocks * 512;
  }
  requireSpace(options.backupDir, needed, options);
}

const confStateOf = (member: Member) => ({
  voters: [member.id],
  learners: [],
  votersOutgoing: [],
  learnersNext: [],
  autoLeave: false,
});

const quiet = (logger: Logger): Logger => ({ ...logger, isDebugEnabled: false, debug: () => {}, info: () => {} });

async function copySnapFile(
  options: BackupOptions,
  member: Member,
  dirs: { readonly from: string; readonly to: string; readonly files: FileSystem },
): Promise<WalStart> {
  const { clock = systemClock, logger } = options;
  const common = { clock, logger: quiet(logger), fileSystem: dirs.files };
  const snapshot = await new SnapStore({ ...common, dir: dirs.from }).loadNewest();
  if (!snapshot) return { index: 0, term: 0 };
  const { index, term } = snapshot.metadata;
  const data = encodeV2Store({
    ...decodeV2Store(snapshot.data ?? new Uint8Array(0)),
    members: new Map([[member.id, member]]),
    removed: new Set(),
  });
  await new SnapStore({ ...common, dir: dirs.to }).save({
    data,
    metadata: { index, term, confState: confStateOf(member) },
  });
  return { index, term };
}

async function copyDatabase(
  options: BackupOptions,
  member: Member,
  content: WalContent,
  to: { readonly source: DataDirPaths; readonly snapDir: string; readonly job: Job },
): Promise<void> {
  const { logger } = options;
  const members: Changes["replaced"] = new Map([
    ["cluster", []],
    ["members", [[utf8Bytes(hexId(member.id)), utf8Bytes(memberToJson(member))]]],
    ["members_removed", []],
  ]);
  const target = {
    to: options.backend,
    path: path.join(to.snapDir, options.backend === "lmdb" ? "db.lmdb" : "db"),
    job: to.job,
    what: "copying",
  } as const;
  if (!options.withV3) {
    const { commit, term } = content.hardState;
    const meta: Row[] = [
      [metaKeys.consistentIndex, counterBytes(commit)],
      [metaKeys.term, counterBytes(term)],
    ];
    const empty = new Map(BUCKETS.map((bucket): [string, Row[]] => [bucket, bucket === "meta" ? meta : []]));
    const quiet = { ...to.job, hasThreads: false };
    await convert(NO_STORE, { ...target, job: quiet, changes: { replaced: new Map([...empty, ...members]) } });
    return;
  }
  logger.info("Trimming membership information from the backend...");
  const kind = backendKind(to.source);
  refuseNewerBeside(to.source, kind);
  const file = databaseFile(to.source, kind);
  const store = openStore(file, kind);
  try {
    tellLeftOut(store, options.backend, logger);
    await convert(store, { ...target, changes: { replaced: members } });
  } catch (error) {
    throw damageAsError(file, error);
  } finally {
    store.close();
  }
}

/** A database without rows. */
const NO_STORE: Store = {
  path: "",
  kind: "bbolt",
  sizeBytes: 0,
  buckets: [],
  bytesRead: 0,
  cursor: () => new ListCursor([]),
  get: () => undefined,
  lastKey: () => undefined,
  rowCrc: (row, previous) => crc32c(row.value, crc32c(row.key, previous)),
  close: () => {},
};

async function writeLog(
  options: BackupOptions,
  content: WalContent,
  to: { readonly start: WalStart; readonly member: Member; readonly walDir: string; readonly files: FileSystem },
): Promise<void> {
  const { clock = systemClock, logger } = options;
  const wal = await createWal(to.walDir, content.metadata, { clock, logger: quiet(logger), fileSystem: to.files });
  try {
    await wal.save(
      content.hardState,
      content.entries.map((entry) => withoutMembership(entry, options.withV3)),
    );
    if (to.start.index > 0) await wal.saveSnapshot({ ...to.start, confState: confStateOf(to.member) });
  } finally {
    await wal.close();
  }
}

const emptied = (entry: Entry): Entry => Entry.create({ term: entry.term, index: entry.index });

/** Entries that tell of members keep their place and lose their content; so do those of version 3 when not wanted. */
function withoutMembership(entry: Entry, withV3: boolean): Entry {
  if (entry.type !== EntryType.EntryNormal) return emptied(entry);
  if (!entry.data || entry.data.length === 0) return entry;
  const v2 = decodeV2Request(entry.data);
  if (v2) return isMemberAttribute(v2) ? emptied(entry) : entry;
  const request = InternalRaftRequest.decode(entry.data);
  if (request.v2) return isMemberAttribute(request.v2) ? emptied(entry) : entry;
  if (!withV3 || request.clusterMemberAttrSet) return emptied(entry);
  return entry;
}

const V2_METHODS: ReadonlySet<string> = new Set(["PUT", "POST", "DELETE", "QGET", "SYNC"]);

/** A bare request of the version 2 API, which 3.5 still proposes for two purposes; told by its method. */
function decodeV2Request(data: Uint8Array): Request | undefined {
  try {
    const request = Request.decode(data);
    return V2_METHODS.has(request.method) ? request : undefined;
  } catch {
    return undefined;
  }
}

function isMemberAttribute(request: Request): boolean {
  return request.method === "PUT" && /^\/0\/members\/[^/]+\/attributes$/.test(request.path);
}
