/**
 * Makes an LMDB backend at `backendPath` (which must not exist; built under a temporary name and renamed when durable)
 * of the bbolt file at `boltPath`, with `live` and `past` derived from `key`. Used for a snapshot received from a leader
 * and by `snapshot restore`. Throws when the file is not a sound bbolt file.
 */
export function importBolt(_options: {
  readonly boltPath: string;
  readonly backendPath: string;
  readonly signal?: AbortSignal;
}): Promise<{ readonly revision: number; readonly rows: number }> {
  throw new Error("importBolt: being written");
}
