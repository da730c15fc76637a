/** Internal records: round trips, what proto2 tells apart, and how v3 requests are told from bare v2 ones. */
import * as wire from "@etcd-ts/client/wire";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { arbitraryMessage, codecsOf } from "../../../client/src/wire/testing.ts";
import * as authpb from "./authpb.ts";
import * as etcdserverpb from "./etcdserverpb.ts";
import * as leasepb from "./leasepb.ts";
import * as membershippb from "./membershippb.ts";
import * as raftpb from "./raftpb.ts";
import * as snappb from "./snappb.ts";
import * as walpb from "./walpb.ts";

const codecs = [authpb, etcdserverpb, leasepb, membershippb, raftpb, snappb, walpb].flatMap((m) => codecsOf(m));

describe("internal records", () => {
  it.each(codecs.map((codec) => [codec.typeName, codec] as const))("%s survives a round trip", (_name, codec) => {
    fc.assert(
      fc.property(arbitraryMessage(codec), (message) => {
        const bytes = codec.encode(message as wire.Init<unknown>);
        const decoded = codec.decode(bytes);
        expect(Buffer.compare(codec.encode(decoded as wire.Init<unknown>), bytes)).toBe(0);
        expect(codec.decode(codec.encode(decoded as wire.Init<unknown>))).toEqual(decoded);
        if (codec.typeName !== "raftpb.Message") expect(decoded).toEqual(message);
      }),
      { numRuns: 60 },
    );
  });

  it("absent and empty bytes of an entry differ", () => {
    expect(raftpb.Entry.decode(raftpb.Entry.encode({})).data).toBeUndefined();
    expect(raftpb.Entry.decode(raftpb.Entry.encode({ data: new Uint8Array(0) })).data).toEqual(new Uint8Array(0));
  });

  it("the tri-state bools of a v2 request keep absent, false and true apart", () => {
    for (const prevExist of [undefined, false, true]) {
      const bytes = etcdserverpb.Request.encode({ prevExist });
      expect(etcdserverpb.Request.decode(bytes).prevExist).toBe(prevExist);
    }
  });

  it("a message without snapshot carries the empty one of 3.5, and reads both styles as absent", () => {
    const old = raftpb.Message.encode({ type: raftpb.MessageType.MsgApp });
    expect(raftpb.Message.decode(old).snapshot).toBeUndefined();
    expect(raftpb.Message.decode(Buffer.from("0803", "hex")).snapshot).toBeUndefined();
    const full = raftpb.Message.encode({ snapshot: { metadata: { index: 5 } } });
    expect(raftpb.Message.decode(full).snapshot?.metadata.index).toBe(5);
  });

  it("repeated ids are accepted packed and unpacked, and written unpacked", () => {
    const packed = Buffer.from("0a0401ac0203", "hex");
    expect(raftpb.ConfState.decode(packed).voters).toEqual([1n, 300n, 3n]);
    expect(Buffer.from(raftpb.ConfState.encode({ voters: [1n, 300n] })).toString("hex")).toBe("080108ac022800");
  });

  it.each(["PUT", "POST", "DELETE", "QGET", "SYNC"])("a bare v2 %s is no InternalRaftRequest", (method) => {
    const bytes = etcdserverpb.Request.encode({ id: 7n, method, path: "/0/version", val: "3.5.0" });
    expect(() => etcdserverpb.InternalRaftRequest.decode(bytes)).toThrow(wire.WireError);
    expect(etcdserverpb.Request.decode(bytes)).toMatchObject({ id: 7n, method, val: "3.5.0" });
  });

  it("an InternalRaftRequest is no bare v2 request", () => {
    const bytes = etcdserverpb.InternalRaftRequest.encode({ header: { id: 1n }, v2: { id: 5n, method: "PUT" } });
    expect(etcdserverpb.InternalRaftRequest.decode(bytes).v2?.method).toBe("PUT");
  });
});
