/** bbolt files: etcd's own `.db`, read by page and written in one pass. */
export { exportBolt } from "./export.ts";
export { importBolt } from "./import.ts";
export { openBolt } from "./reader.ts";
export type { BoltExport, BoltFile } from "./types.ts";
