import { open } from "node:fs/promises";

/** Makes names in a folder durable: creations, renames and removals. */
export async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
