/**
 * Writes numbered rows as fast as it can and reports each number that is durable, until it is killed. Run by
 * backend.test.ts: crash-writer FILE DEFRAGMENTS
 */
import { utf8Text } from "../../../lib/bytes.ts";
import { systemClock } from "../../../lib/clock.ts";
import { silentLogger } from "../../../lib/log.ts";
import { openBackend } from "../index.ts";

const [file = "", defragments] = process.argv.slice(2);
const backend = await openBackend({
  path: file,
  clock: systemClock,
  logger: silentLogger,
  onFatal: (error) => {
    throw error;
  },
  batchIntervalMs: 1,
});
const index = Buffer.from("consistent_index");
const row = (n: number) => Buffer.from(String(n).padStart(10, "0"));
let last = Number(utf8Text(backend.get("meta", index) ?? row(0)));
if (defragments === "true") {
  void (async () => {
    for (;;) await backend.defragment();
  })();
}
for (;;) {
  for (let i = 0; i < 5; i++) {
    last++;
    backend.write((tx) => {
      tx.put("key", row(last), row(last));
      tx.put("live", row(last), row(last));
      tx.put("meta", index, Buffer.from(String(last)));
    });
    if (i % 2 === 0) await new Promise((resolve) => setImmediate(resolve));
  }
  const flushed = last;
  await backend.flush();
  process.send?.(flushed);
}
