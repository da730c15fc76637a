import { afterEach, describe, expect, it } from "vitest";
import { type Client, connect } from "./index.ts";
import { FakeServer } from "./testing/fake-server.ts";
import { EtcdError, Lease } from "./wire/index.ts";

const opened: AsyncDisposable[] = [];

afterEach(async () => {
  for (const each of opened.splice(0).reverse()) await each[Symbol.asyncDispose]();
});

async function pair(): Promise<{ client: Client; fake: FakeServer }> {
  const fake = await FakeServer.start();
  opened.push(fake);
  const client = await connect({ endpoints: [fake.endpoint] });
  opened.push(client);
  return { client, fake };
}

describe("lease", () => {
  it("grant, revoke, timeToLive and list pass their fields on", async () => {
    const { client, fake } = await pair();
    fake
      .on(Lease.methods.leaseGrant, ({ ttl, id }) => ({ ttl, id: id === 0n ? 77n : id }))
      .on(Lease.methods.leaseRevoke, ({ id }) => {
        if (id !== 77n) throw new EtcdError("LeaseNotFound");
        return {};
      })
      .on(Lease.methods.leaseTimeToLive, ({ id, keys }) => ({ id, ttl: 3, keys: keys ? [Buffer.from("k")] : [] }))
      .on(Lease.methods.leaseLeases, () => ({ leases: [{ id: -1n }] }));
    expect(await client.lease.grant(10)).toMatchObject({ id: 77n, ttl: 10 });
    expect((await client.lease.grant(10, { id: -5n })).id).toBe(-5n);
    await client.lease.revoke(77n);
    await expect(client.lease.revoke(78n)).rejects.toMatchObject({ kind: "LeaseNotFound" });
    expect((await client.lease.timeToLive(77n, { keys: true })).keys).toHaveLength(1);
    expect((await client.lease.list()).leases).toEqual([{ id: -1n }]);
  });

  it("keepAlive() yields each renewal and ends when the lease is gone", async () => {
    const { client, fake } = await pair();
    const ttls = [1, 1, 0];
    fake.onStream(Lease.methods.leaseKeepAlive, (stream) => {
      stream.onRequest(({ id }) => stream.send({ id, ttl: ttls.shift() ?? 0 }));
    });
    const seen: number[] = [];
    for await (const { ttl } of client.lease.keepAlive(5n)) seen.push(ttl);
    expect(seen).toEqual([1, 1]);
  });

  it("leases share a stream; one that ends leaves the others alone", async () => {
    const { client, fake } = await pair();
    let streams = 0;
    fake.onStream(Lease.methods.leaseKeepAlive, (stream) => {
      streams++;
      stream.onRequest(({ id }) => stream.send({ id, ttl: id === 1n ? 0 : 1 }));
    });
    const first = client.lease.keepAlive(1n)[Symbol.asyncIterator]();
    const second = client.lease.keepAlive(2n)[Symbol.asyncIterator]();
    const [one, two] = await Promise.all([first.next(), second.next()]);
    expect(one.done).toBe(true);
    expect(two.value?.ttl).toBe(1);
    expect((await second.next()).value?.ttl).toBe(1);
    await second.return?.();
    expect(streams).toBe(1);
  });

  it("a lease that is kept right after the last other one ended is kept too", async () => {
    const { client, fake } = await pair();
    fake.onStream(Lease.methods.leaseKeepAlive, (stream) => {
      stream.onRequest(({ id }) => stream.send({ id, ttl: 9 }));
    });
    for (let id = 1n; id <= 5n; id++) {
      for await (const answer of client.lease.keepAlive(id)) {
        expect(answer.id).toBe(id);
        break;
      }
    }
  });

  it("renews on another stream when one breaks", async () => {
    const { client, fake } = await pair();
    let streams = 0;
    fake.onStream(Lease.methods.leaseKeepAlive, (stream) => {
      const isFirst = ++streams === 1;
      stream.onRequest(({ id }) => {
        if (isFirst) stream.end(new EtcdError("Stopped"));
        else stream.send({ id, ttl: 9 });
      });
    });
    const iterator = client.lease.keepAlive(5n)[Symbol.asyncIterator]();
    expect((await iterator.next()).value?.ttl).toBe(9);
    await iterator.return?.();
    expect(streams).toBe(2);
  });

  it("gives a lease up when nobody could be reached for as long as it lives", async () => {
    const { client, fake } = await pair();
    fake.onStream(Lease.methods.leaseKeepAlive, (stream) => {
      stream.onRequest(({ id }) => {
        stream.send({ id, ttl: 1 });
        setImmediate(() => fake.stop());
      });
    });
    let renewals = 0;
    for await (const _ of client.lease.keepAlive(5n)) renewals++;
    expect(renewals).toBe(1);
  });

  it("keepAlive() ends with the signal's reason, and without an error when the client closes", async () => {
    const { client, fake } = await pair();
    fake.onStream(Lease.methods.leaseKeepAlive, (stream) => {
      stream.onRequest(({ id }) => stream.send({ id, ttl: 9 }));
    });
    const abort = new AbortController();
    const reason = new Error("enough");
    const aborted = (async () => {
      for await (const _ of client.lease.keepAlive(5n, { signal: abort.signal })) abort.abort(reason);
    })();
    await expect(aborted).rejects.toBe(reason);
    for await (const _ of client.lease.keepAlive(6n)) client.close();
  });

  it("keepAlive() throws what the server refuses", async () => {
    const { client, fake } = await pair();
    fake.onStream(Lease.methods.leaseKeepAlive, (stream) => stream.end(new EtcdError("PermissionDenied")));
    await expect(client.lease.keepAlive(5n).next()).rejects.toMatchObject({ kind: "PermissionDenied" });
  });

  it("keepAliveOnce() renews once, or says that the lease is gone", async () => {
    const { client, fake } = await pair();
    fake.onStream(Lease.methods.leaseKeepAlive, (stream) => {
      stream.onRequest(({ id }) => stream.send({ id, ttl: id === 5n ? 9 : 0 }));
    });
    expect((await client.lease.keepAliveOnce(5n)).ttl).toBe(9);
    await expect(client.lease.keepAliveOnce(6n)).rejects.toMatchObject({ kind: "LeaseNotFound" });
  });

  it("keepAliveOnce() ends with its time-out", async () => {
    const { client, fake } = await pair();
    fake.onStream(Lease.methods.leaseKeepAlive, () => {});
    await expect(client.lease.keepAliveOnce(5n, { timeoutMs: 50 })).rejects.toMatchObject({
      details: "context deadline exceeded",
    });
  });
});
