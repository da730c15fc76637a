/** Membership changes that go through the raft log. */
export * from "./gen/membershippb.gen.ts";
