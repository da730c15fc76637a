import type { BoltFile } from "./types.ts";

/** Opens a bbolt file for reading. Throws {@link Error} in bbolt's words when neither meta page is valid. */
export function openBolt(_path: string): BoltFile {
  throw new Error("openBolt: being written");
}
