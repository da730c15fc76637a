/** Stored leases, and the lease calls between members. */
export * from "./gen/leasepb.gen.ts";
