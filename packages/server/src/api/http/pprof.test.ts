import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll, beforeAll, expect, it } from "vitest";
import { systemClock } from "../../lib/clock.ts";
import { pprofRoutes } from "./pprof.ts";

const TRACE_BYTES_MAX = 20_000;
let url: string;
const server = createServer((request, response) => {
  const asked = new URL(request.url ?? "/", "http://x");
  Promise.resolve(routes.get(asked.pathname)?.(request, response, asked)).catch((error: unknown) =>
    response.writeHead(500).end(String(error)),
  );
});
const routes = pprofRoutes({ clock: systemClock, argv: [], traceBytesMax: TRACE_BYTES_MAX });

beforeAll(async () => {
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/debug/pprof`;
});
afterAll(() => {
  server.closeAllConnections();
  server.close();
});

it("a trace ends when it has so many bytes, long before its time, and the next one is as good", async () => {
  // Something to trace, much of it: Node hands events on when it has some ten thousands.
  let isOver = false;
  const busy = (async () => {
    while (!isOver) await Promise.all(Array.from({ length: 1000 }, () => new Promise((done) => setImmediate(done))));
  })();
  for (let i = 0; i < 2; i++) {
    // Ten minutes: the test's own time limit is shorter.
    const response = await fetch(`${url}/trace?seconds=600`);
    expect(response.status).toBe(200);
    const text = await response.text();
    expect(text.length).toBeLessThan(2 * TRACE_BYTES_MAX);
    expect((JSON.parse(text) as { traceEvents: unknown[] }).traceEvents.length).toBeGreaterThan(10);
  }
  isOver = true;
  await busy;
});

it("there is one trace at a time, and none is left behind by a caller that goes", async () => {
  const gone = new AbortController();
  const statusOf = async (): Promise<number> => {
    const response = await fetch(`${url}/trace?seconds=0.01`);
    await response.arrayBuffer();
    return response.status;
  };
  // One that comes while a short one runs is refused, so ask until it is the short one that is.
  const long: Promise<unknown>[] = [];
  do long.push(fetch(`${url}/trace?seconds=600`, { signal: gone.signal }).catch(() => "gone"));
  while ((await statusOf()) !== 500);
  gone.abort();
  expect(await Promise.all(long)).toContain("gone");
  while ((await statusOf()) !== 200);
});
