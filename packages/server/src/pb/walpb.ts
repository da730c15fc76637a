/** Records of the write-ahead log. */
export * from "./gen/walpb.gen.ts";
