/** What raft logs and sends. */
export * from "./gen/raftpb.gen.ts";
