import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { EtcdError, PutRequest, RangeRequest, TxnRequest } from "@etcd-ts/client/wire";
import { expect, it } from "vitest";
import { utf8Bytes } from "../../lib/bytes.ts";
import { VirtualClock } from "../../lib/clock.ts";
import { silentLogger } from "../../lib/log.ts";
import { Cluster } from "../../membership/index.ts";
import { MvccStore } from "../../mvcc/index.ts";
import { InternalRaftRequest } from "../../pb/etcdserverpb.ts";
import { openBackend } from "../../storage/index.ts";
import { type ApplyDeps, applyMembership, applyRequest } from "./applier.ts";
import { createQuota } from "./quota.ts";

const onFatal = (error: unknown): never => {
  throw error;
};

/** What a member holds after it has applied the request, waited for or not; and what it said. */
async function applied(request: InternalRaftRequest, isAwaited: boolean) {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "applier-"));
  const clock = new VirtualClock();
  const backend = await openBackend({
    path: path.join(folder, "db.lmdb"),
    clock,
    logger: silentLogger,
    onFatal,
    commits: "inline",
    mapSizeBytes: 2 ** 30,
  });
  const store = await MvccStore.open({ backend, leases: new Set<bigint>(), clock, logger: silentLogger, onFatal });
  try {
    const deps = {
      store,
      cluster: {},
      alarms: { has: () => false },
      quota: createQuota({ configuredBytes: 0, sizeBytes: () => 0, logger: silentLogger }),
      auth: { isEnabled: false },
      logger: silentLogger,
    } as unknown as ApplyDeps;
    const { error } = backend.write((tx) => applyRequest(deps, tx, request, { index: 1, isAwaited }));
    return { revision: store.currentRevision, kind: error instanceof EtcdError ? error.kind : error };
  } finally {
    await store.close();
    await backend.close();
    fs.rmSync(folder, { recursive: true });
  }
}

const putThenRange = (revision: number) =>
  InternalRaftRequest.create({
    txn: TxnRequest.create({
      success: [
        { request: { kind: "requestPut", value: PutRequest.create({ key: utf8Bytes("a") }) } },
        { request: { kind: "requestRange", value: RangeRequest.create({ key: utf8Bytes("a"), revision }) } },
      ],
    }),
  });

it("requests of later releases that concern the cluster are taken from the log", () => {
  const url = "http://127.0.0.1:2380";
  const cluster = Cluster.fromInitial(
    { urls: new Map([["a", [url]]]), token: "t" },
    { logger: silentLogger, serverVersion: "3.5.16", onVersion: () => {} },
  );
  const id = cluster.members()[0]?.id ?? 0n;
  const apply = (request: Partial<InternalRaftRequest>) =>
    applyMembership({ cluster }, undefined, InternalRaftRequest.create(request));
  const clientUrls = ["http://127.0.0.1:2379"];
  expect(apply({ clusterMemberAttrSet: { memberId: id, memberAttributes: { name: "named", clientUrls } } })).toBe(true);
  expect(cluster.member(id)).toMatchObject({ name: "named", clientUrls, peerUrls: [url] });
  expect(apply({ clusterVersionSet: { ver: "3.5.0" } })).toBe(true);
  expect(cluster.version()).toBe("3.5.0");
  expect(apply({ downgradeInfoSet: { enabled: true, ver: "3.4.0" } })).toBe(true);
  expect(cluster.downgradeInfo()).toEqual({ enabled: true, targetVersion: "3.4.0" });
  expect(apply({ put: PutRequest.create({ key: utf8Bytes("a") }) })).toBe(false);
});

it("a transaction that a range refuses is refused on every member, whoever waits for it", async () => {
  for (const isAwaited of [true, false]) {
    expect(await applied(putThenRange(99), isAwaited)).toEqual({ revision: 1, kind: "FutureRevision" });
    expect(await applied(putThenRange(0), isAwaited)).toEqual({ revision: 2, kind: undefined });
  }
});
