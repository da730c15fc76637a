import { AlarmType, CompareResult, CompareTarget, EtcdError, PutRequest, TxnRequest } from "@etcd-ts/client/wire";
import { describe, expect, it } from "vitest";
import { utf8Bytes } from "../../lib/bytes.ts";
import { silentLogger } from "../../lib/log.ts";
import { InternalRaftRequest, Request } from "../../pb/etcdserverpb.ts";
import { alarmName } from "./alarms.ts";
import { confStateToJson } from "./conf-state.ts";
import { applyErrorText } from "./error-text.ts";
import { costOfTxn, createQuota, LAYOUT_ALLOWANCE_BYTES } from "./quota.ts";
import { raftRequestText } from "./request-text.ts";
import { asV2Request } from "./v2-request.ts";

const put = (key: string, value: string) => PutRequest.create({ key: utf8Bytes(key), value: utf8Bytes(value) });

describe("raftRequestText()", () => {
  const text = (init: Parameters<typeof InternalRaftRequest.create>[0]) =>
    raftRequestText(InternalRaftRequest.create({ header: { id: 7n }, ...init }));

  it("shows sizes in place of values, and escapes as Go does", () => {
    expect(text({ put: { key: utf8Bytes('z"\n\x01'), value: utf8Bytes("secret"), prevKv: true } })).toBe(
      'header:<ID:7 > put:<key:"z\\"\\n\\001" value_size:6 prev_kv:true >',
    );
    expect(
      text({
        txn: {
          compare: [
            {
              result: CompareResult.Equal,
              target: CompareTarget.Value,
              key: utf8Bytes("a"),
              targetUnion: { kind: "value", value: utf8Bytes("abc") },
            },
          ],
          success: [{ request: { kind: "requestPut", value: put("k", "vv") } }],
        },
      }),
    ).toBe(
      'header:<ID:7 > txn:<compare:<target:VALUE key:"a" value_size:3 > success:<request_put:<key:"k" value_size:2 >> failure:<>>',
    );
  });

  it("shows the others as protobuf text", () => {
    expect(text({ deleteRange: { key: utf8Bytes("k"), rangeEnd: utf8Bytes("l") } })).toBe(
      'header:<ID:7 > delete_range:<key:"k" range_end:"l" > ',
    );
    expect(text({ leaseGrant: { ttl: 5, id: 5n } })).toBe(
      "header:<ID:7 > lease_grant:<ttl:5-second id:0000000000000005>",
    );
    expect(text({ compaction: { revision: 402, physical: true } })).toBe(
      "header:<ID:7 > compaction:<revision:402 physical:true > ",
    );
  });
});

describe("applyErrorText()", () => {
  it("is what the room said in which the error arose", () => {
    expect(applyErrorText(new EtcdError("FutureRevision"))).toBe("mvcc: required revision is a future revision");
    expect(applyErrorText(new EtcdError("LeaseNotFound"))).toBe("lease not found");
    expect(applyErrorText(new EtcdError("NoSpace"))).toBe("etcdserver: no space");
    expect(applyErrorText(new EtcdError("UserAlreadyExist"))).toBe("auth: user already exists");
  });

  it("is the same as the caller's where etcd knows but one", () => {
    expect(applyErrorText(new EtcdError("KeyNotFound"))).toBe("etcdserver: key not found");
    expect(applyErrorText(new Error("disk on fire"))).toBe("disk on fire");
  });
});

describe("quota", () => {
  it("counts the dearer branch of a transaction, with what is nested in it", () => {
    const inner = TxnRequest.create({ success: [{ request: { kind: "requestPut", value: put("k", "v") } }] });
    const txn = TxnRequest.create({
      success: [{ request: { kind: "requestTxn", value: inner } }],
      failure: [{ request: { kind: "requestPut", value: put("", "") } }],
    });
    expect(costOfTxn(txn)).toBe(258);
  });

  it("leaves out what an empty database takes", () => {
    let size = LAYOUT_ALLOWANCE_BYTES;
    const quota = createQuota({ configuredBytes: 1000, sizeBytes: () => size, logger: silentLogger });
    expect(quota.hasRoomFor(999)).toBe(true);
    size += 1;
    expect(quota.hasRoomFor(999)).toBe(false);
  });

  it("lets through what costs nothing, whatever the size", () => {
    let size = 0;
    const quota = createQuota({ configuredBytes: 1000, sizeBytes: () => size, logger: silentLogger });
    expect(quota.hasRoomFor(999)).toBe(true);
    expect(quota.hasRoomFor(1000)).toBe(false);
    size = LAYOUT_ALLOWANCE_BYTES + 5000;
    expect(quota.hasRoomFor(0)).toBe(true);
    expect(quota.hasRoomFor(1)).toBe(false);
    expect(createQuota({ configuredBytes: -1, sizeBytes: () => size, logger: silentLogger }).hasRoomFor(1)).toBe(true);
  });
});

describe("asV2Request()", () => {
  it("tells the bare form from the other by its method, of whatever length", () => {
    for (const method of ["PUT", "POST", "DELETE", "QGET", "SYNC"]) {
      const data = Request.encode({ id: 0x694d23456789ab01n, method, path: "/0/version", val: "3.5.0" });
      expect(asV2Request(data)?.method).toBe(method);
    }
    for (const init of [
      { header: { id: 1n }, put: put("k", "v") },
      { header: { id: 1n }, authEnable: {} },
      { id: 5n, v2: { id: 5n } },
    ]) {
      expect(asV2Request(InternalRaftRequest.encode(init))).toBeUndefined();
    }
  });
});

it("confStateToJson() writes bare digits and leaves empty lists out", () => {
  expect(
    confStateToJson({
      voters: [7101852577860610209n],
      learners: [],
      votersOutgoing: [],
      learnersNext: [],
      autoLeave: false,
    }),
  ).toBe('{"voters":[7101852577860610209],"auto_leave":false}');
});

it("alarmName() spells alarms as the API does", () => {
  expect([alarmName(AlarmType.NoSpace), alarmName(AlarmType.Corrupt)]).toEqual(["NOSPACE", "CORRUPT"]);
});
