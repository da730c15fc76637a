/**
 * The internal half of etcdserverpb: InternalRaftRequest with its header, the bare v2 Request, the WAL's Metadata.
 *
 * A normal entry that decodes as InternalRaftRequest is one; any other is a bare Request. This rests on the decoders
 * refusing a known field with another wire type: field 2 is a message in the first and the method's name in the other.
 */
export * from "./gen/etcdserverpb.gen.ts";
