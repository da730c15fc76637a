/** Stored users and roles. */
export * from "./gen/authpb.gen.ts";
