/** The envelope of a .snap file. */
export * from "./gen/snappb.gen.ts";
