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
import { dataDirPaths } from "../data-dir.ts";
import type { FileSystem } from "../file-system.ts";
import { lockDataDir } from "../lock.ts";
import { decodeV2Store, encodeV2Store, type Member, memberToJson } from "../schema/index.ts";
import { SnapStore } from "../snap/index.ts";
import { createWal, readWal, type WalContent, type WalStart } from "../wal/index.ts";
import { ListCursor } from "../rows.ts";
import { convert } from "./convert.ts";
import { counterBytes, metaKeys } from "./database-file.ts";
import { OfflineFatal } from "./errors.ts";
import { type Job, type JobOptions, jobOf } from "./job.ts";
import { type BackendKind, backendKind } from "./member-dir.ts";
import { type Changes, openStore, type Store } from "./store.ts";

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

export async function backupDataDir(options: BackupOptions): Promise<void> {
  const { clock = systemClock } = options;
  const job = jobOf(options);
  const { files } = job;
  const source = dataDirPaths(options.dataDir, options.walDir);
  const target = dataDirPaths(options.backupDir, options.backupWalDir);
  const member = inventedMember(clock);
  await step("failed creating backup snapshot dir", async () => {
    if (fs.existsSync(target.snapDir) && fs.readdirSync(target.snapDir).length > 0) {
      throw new Error(`expected ${JSON.stringify(target.snapDir)} to be empty`);
    }
    await files.makeDirectory(target.snapDir, 0o700);
  });
  if (!fs.existsSync(source.snapDir)) {
    throw new OfflineFatal(
      "saveSnap(Snapshoter.Load) failed",
      new Error(`open ${source.snapDir}: no such file or directory`),
    );
  }
  const lock = await step("failed to lock the data directory", () => lockDataDir(source));
  try {
    const start = await step("saveSnap(Snapshoter.Load) failed", () =>
      copySnapFile(options, member, { from: source.snapDir, to: target.snapDir, files }),
    );
    const content = await step("unable to read WAL", () => readWal(source.walDir, start, { fileSystem: files }));
    await step("saveDB failed", () =>
      copyDatabase(options, member, content, { source: source.dataDir, snapDir: target.snapDir, job }),
    );
    await step("wal.Create failed", () => writeLog(options, content, { start, member, walDir: target.walDir, files }));
  } finally {
    await lock.release();
  }
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
  to: { readonly source: string; readonly snapDir: string; readonly job: Job },
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
  const paths = dataDirPaths(to.source);
  const kind = backendKind(paths);
  const store = openStore(kind === "lmdb" ? paths.backendFile : paths.boltFile, kind);
  try {
    await convert(store, { ...target, changes: { replaced: members } });
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
