/** bbolt files: etcd's own `.db`, read by page and written in one pass. */
export { BoltError } from "./format.ts";
export {
  type DatabaseSummary,
  HashRevisionError,
  hashKeyValues,
  type KeyValueHash,
  type RowSource,
  summarize,
} from "./hash.ts";
export { type ExportOptions, exportBolt } from "./image-jobs.ts";
export { importBoltInWorker } from "./import-jobs.ts";
export { type Imported, type ImportOptions, importBolt, importRows } from "./import.ts";
export { openBolt } from "./reader.ts";
export type { BoltExport, BoltFile, BucketRows, Row } from "./types.ts";
export { BoltWriter, type BoltSink, type BoltWriterOptions, type BucketWriter } from "./writer.ts";
