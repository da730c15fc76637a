import type { Backend, BackendOptions } from "./types.ts";

/** Opens the file, creating it and its tables when absent; removes what an interrupted defragmentation left. */
export function openBackend(_options: BackendOptions): Promise<Backend> {
  throw new Error("openBackend: being written");
}
