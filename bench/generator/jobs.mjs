// What the generator can do. Each kind of job takes its description and gives its findings.
//
//   unary      calls in a closed loop: connections x streams, each with one call under way; other loads beside it
//   fill       so many keys, as fast as the server takes them
//   keepAlive  a lease on each of many streams, renewed in a closed loop
//   watch      watchers, and writers that give them something to see
//   stall      one reader without a pause while something else happens to the server
//   firstRead  asks until a linearizable read is answered; says when that was
//   snapshot   takes the Snapshot stream and writes it to a file
import { closeSync, fsyncSync, openSync, writeSync } from "node:fs";
import { Connection, framed } from "./connection.mjs";
import { CostWindow, Latencies, sleep, window } from "./measure.mjs";
import {
  fields,
  leaseGrant,
  leaseKeepAlive,
  message,
  paths,
  put,
  range,
  txn,
  txnOfPuts,
  varintField,
  watchCreate,
} from "./messages.mjs";

const KEY_DIGITS = 10;
const ERRORS_KEPT = 5;
const WARM_UP_SECONDS = 1.5;

const keyName = (prefix, number) => `${prefix}${String(number).padStart(KEY_DIGITS, "0")}`;
/** The end of the range of all keys that begin so. */
const prefixEnd = (prefix) => prefix.slice(0, -1) + String.fromCharCode(prefix.charCodeAt(prefix.length - 1) + 1);

/** Filler that does not compress and is the same in each run. */
function filler(bytes) {
  const value = Buffer.allocUnsafe(bytes);
  for (let i = 0, x = 1; i < bytes; i++) {
    x = (x * 1103515245 + 12345) % 2147483648;
    value[i] = 97 + ((x >> 16) % 26);
  }
  return value;
}

/** A message with the number of a key in some places, which are overwritten for each call instead of encoding anew. */
class Template {
  #bytes;
  #places = [];

  constructor(make, prefix) {
    const marker = keyName(prefix, 0);
    this.#bytes = framed(make(marker));
    for (let at = this.#bytes.indexOf(marker); at >= 0; at = this.#bytes.indexOf(marker, at + 1)) {
      this.#places.push(at + marker.length);
    }
  }

  /** The same memory each time: to be sent at once. */
  with(number) {
    for (const end of this.#places) {
      let left = number;
      for (let at = end - 1; at >= end - KEY_DIGITS; at--) {
        const next = Math.floor(left / 10);
        this.#bytes[at] = 48 + left - next * 10;
        left = next;
      }
    }
    return this.#bytes;
  }
}

/** An operation as `{ path, next() }`, where `next` gives the framed message of one more call. */
function operation(spec) {
  const { name, prefix = "k/", keys = 1, valueBytes = 300 } = spec;
  const value = filler(valueBytes);
  const random = () => Math.floor(Math.random() * keys);
  const perKey = (path, make) => {
    const template = new Template(make, prefix);
    return { path, next: () => template.with(random()) };
  };
  const fixed = (path, bytes) => {
    const whole = framed(bytes);
    return { path, next: () => whole };
  };
  switch (name) {
    case "put":
      return perKey(paths.put, (key) => put({ key, value }));
    case "range":
      return perKey(paths.range, (key) => range({ ...spec, key }));
    case "list": {
      const whole = { key: prefix, rangeEnd: prefixEnd(prefix) };
      return fixed(paths.range, range({ ...spec, ...whole }));
    }
    case "txn":
      return perKey(paths.txn, (key) => txn({ key, value }));
    case "leaseGrant":
      return fixed(paths.leaseGrant, leaseGrant({ ttl: 3600 }));
    default:
      throw new Error(`no operation is called ${name}`);
  }
}

/** Operations in turn, each as often as its weight says, evenly spread. */
function mixed(specs) {
  if (specs.length === 1) return [operation(specs[0])];
  const total = specs.reduce((sum, spec) => sum + (spec.weight ?? 1), 0);
  const order = [];
  const credit = specs.map(() => 0);
  const made = specs.map(operation);
  for (let i = 0; i < total; i++) {
    specs.forEach((spec, index) => {
      credit[index] += spec.weight ?? 1;
    });
    const best = credit.indexOf(Math.max(...credit));
    credit[best] -= total;
    order.push(made[best]);
  }
  return order;
}

async function connections({ endpoints, connections: count }) {
  const open = [];
  for (let i = 0; i < count; i += 50) {
    const some = Array.from({ length: Math.min(50, count - i) }, (_, j) =>
      Connection.open(endpoints[(i + j) % endpoints.length]),
    );
    open.push(...(await Promise.all(some)));
  }
  return open;
}

/** Calls in a closed loop until `stop`. What ends within a window from `startCounting` on is counted. */
class ClosedLoop {
  errors = 0;
  errorTexts = new Set();
  latencies = new Latencies();
  bytes = 0;
  #isCounting = false;
  #isStopping = false;
  #open = 0;
  #idle;

  constructor(links, streams, operations) {
    let turn = 0;
    for (const link of links) {
      for (let i = 0; i < streams; i++) {
        this.#open++;
        const call = {
          startedAt: 0,
          onData: (_bytes, start, end) => {
            if (this.#isCounting) this.bytes += end - start;
          },
          onEnd: (status, text) => {
            if (status !== 0) this.#failed(status, text);
            else if (this.#isCounting) this.latencies.add(performance.now() - call.startedAt);
            if (this.#isStopping || (status !== 0 && this.errors > 1000)) this.#ended();
            else again();
          },
        };
        let at = turn++ % operations.length;
        const again = () => {
          const { path, next } = operations[at];
          at = at + 1 === operations.length ? 0 : at + 1;
          call.startedAt = performance.now();
          link.unary(path, next(), call);
        };
        again();
      }
    }
  }

  #failed(status, text) {
    this.errors++;
    if (this.errorTexts.size < ERRORS_KEPT) this.errorTexts.add(`${status} ${text}`);
  }

  #ended() {
    this.#open--;
    if (this.#open === 0) this.#idle?.();
  }

  startCounting() {
    this.#isCounting = true;
  }

  stopCounting() {
    this.#isCounting = false;
  }

  /** Resolves when the calls that are under way have ended. */
  stop() {
    this.#isStopping = true;
    return new Promise((resolve) => {
      this.#idle = resolve;
      if (this.#open === 0) resolve();
    });
  }

  findings(tookMs) {
    const { count, ...quantiles } = this.latencies.summary();
    return {
      count,
      perSecond: (count / tookMs) * 1000,
      bytesPerSecond: (this.bytes / tookMs) * 1000,
      latencyMs: quantiles,
      errors: this.errors,
      errorTexts: [...this.errorTexts],
    };
  }
}

async function unary(job) {
  const links = await connections(job);
  const loops = [new ClosedLoop(links, job.streams, mixed(job.operations))];
  for (const beside of job.beside ?? []) {
    const others = await connections({ ...job, ...beside });
    loops.push(new ClosedLoop(others, beside.streams, mixed(beside.operations)));
    links.push(...others);
  }
  await window(job.warmUpSeconds ?? WARM_UP_SECONDS, job.pids);
  for (const loop of loops) loop.startCounting();
  const cost = new CostWindow(job.pids);
  await window(job.seconds, job.pids);
  for (const loop of loops) loop.stopCounting();
  const spent = cost.end();
  await Promise.all(loops.map((loop) => loop.stop()));
  for (const link of links) link.close();
  const [own, ...beside] = loops.map((loop) => loop.findings(spent.tookMs));
  return { ...own, ...spent, beside };
}

async function fill(job) {
  const { prefix = "k/", keys, valueBytes = 300, perTxn = 1 } = job;
  const links = await connections(job);
  const value = filler(valueBytes);
  const single = new Template((key) => put({ key, value }), prefix);
  let next = 0;
  const cost = new CostWindow(job.pids);
  const lane = (link) =>
    new Promise((resolve, reject) => {
      const call = {
        onEnd: (status, text) => {
          if (status !== 0) reject(new Error(`the server cannot be filled: ${status} ${text}`));
          else again();
        },
      };
      const again = () => {
        if (next >= keys) resolve();
        else if (perTxn === 1) link.unary(paths.put, single.with(next++), call);
        else {
          const puts = [];
          while (puts.length < perTxn && next < keys) puts.push({ key: keyName(prefix, next++), value });
          link.unary(paths.txn, framed(txnOfPuts(puts)), call);
        }
      };
      again();
    });
  await Promise.all(links.flatMap((link) => Array.from({ length: job.streams }, () => lane(link))));
  const spent = cost.end();
  for (const link of links) link.close();
  return { count: keys, perSecond: (keys / spent.tookMs) * 1000, ...spent };
}

/** One unary call; gives the answer's message. */
function once(link, path, bytes) {
  return new Promise((resolve, reject) => {
    let answer = Buffer.alloc(0);
    link.unary(path, framed(bytes), {
      onMessage: (memory, start, end) => {
        answer = Buffer.from(memory.subarray(start, end));
      },
      onEnd: (status, text) => (status === 0 ? resolve(answer) : reject(new Error(`${path}: ${status} ${text}`))),
    });
  });
}

async function keepAlive(job) {
  const links = await connections(job);
  const latencies = new Latencies();
  let isCounting = false;
  let failure;
  for (const link of links) {
    for (let i = 0; i < job.streams; i++) {
      const granted = await once(link, paths.leaseGrant, leaseGrant({ ttl: 3600 }));
      // LeaseGrantResponse.ID, as its raw varint: 63 bits do not fit into a number.
      let id = 0n;
      let at = 0;
      while (at < granted.length) {
        const tag = granted[at++];
        if (tag === 0x10) {
          for (let shift = 0n; ; shift += 7n) {
            const byte = granted[at++];
            id |= BigInt(byte & 127) << shift;
            if (byte < 128) break;
          }
        } else if ((tag & 7) === 2) at += 1 + granted[at];
        else while (granted[at++] >= 128);
      }
      const bytes = framed(leaseKeepAlive({ id }));
      let sentAt = 0;
      const stream = link.stream(paths.leaseKeepAlive, {
        onMessage: () => {
          const now = performance.now();
          if (isCounting) latencies.add(now - sentAt);
          sentAt = now;
          link.send(stream, bytes);
        },
        onEnd: (status, text) => {
          failure ??= `${status} ${text}`;
        },
      });
      sentAt = performance.now();
      link.send(stream, bytes);
    }
  }
  await window(job.warmUpSeconds ?? WARM_UP_SECONDS, job.pids);
  isCounting = true;
  const cost = new CostWindow(job.pids);
  await window(job.seconds, job.pids);
  isCounting = false;
  const spent = cost.end();
  if (failure) throw new Error(`a keep-alive stream ended: ${failure}`);
  for (const link of links) link.close();
  const { count, ...latencyMs } = latencies.summary();
  return { count, perSecond: (count / spent.tookMs) * 1000, latencyMs, errors: 0, errorTexts: [], ...spent };
}

const TIME_BYTES = 13;

/**
 * `watchers` on `connections` connections, a stream each, for one key, for a key each (`keys`: as many), or for all;
 * `writers` put with `perTxn` keys a transaction. The time of writing travels in the value.
 */
async function watch(job) {
  const { prefix = "k/", watchers, keys, valueBytes = 300, watchAll = false, perTxn = 1, backlog = 0 } = job;
  const links = await connections(job);
  const latencies = new Latencies();
  let isCounting = false;
  let events = 0;
  let responses = 0;
  let created = 0;
  let allCreated;
  const areReady = new Promise((resolve) => {
    allCreated = resolve;
  });
  let failure;
  /** Where the time stands in a value: after the filler's first bytes, as digits of a millisecond's thousandths. */
  const onMessage = (bytes, start, end) => {
    let firstValue = -1;
    let here = 0;
    fields(bytes, start, end, (number, type, _from, to) => {
      if (number === 3 && type === 0) {
        created++;
        if (created === watchers) allCreated();
      } else if (number === 11) {
        here++;
        if (firstValue < 0) firstValue = to;
      }
    });
    if (here === 0) return;
    responses++;
    events += here;
    // A value ends its KeyValue, which ends its Event: the time is the last bytes of it.
    if (isCounting && backlog === 0) {
      let sent = 0;
      for (let at = firstValue - TIME_BYTES; at < firstValue; at++) sent = sent * 10 + bytes[at] - 48;
      latencies.add(performance.now() - sent / 1000);
    }
  };
  const perLink = Math.ceil(watchers / links.length);
  const openWatchers = (startRevision) => {
    let number = 0;
    for (const link of links) {
      const stream = link.stream(paths.watch, {
        onMessage,
        onEnd: (status, text) => {
          failure ??= `${status} ${text}`;
        },
      });
      for (let i = 0; i < perLink && number < watchers; i++, number++) {
        const one = watchAll
          ? { key: prefix, rangeEnd: prefixEnd(prefix) }
          : { key: keyName(prefix, keys > 1 ? number % keys : 0) };
        link.send(stream, framed(watchCreate({ ...one, startRevision })));
      }
    }
  };
  const check = (ms) =>
    Promise.race([
      areReady,
      sleep(ms).then(() => {
        throw new Error(`only ${created} of ${watchers} watchers were created; ${failure ?? ""}`);
      }),
    ]);
  if (backlog > 0) {
    // From history: everything that has been written, as fast as it comes.
    const cost = new CostWindow(job.pids);
    openWatchers(1);
    await check(60_000);
    while (events < backlog * watchers && !failure) await sleep(1);
    const spent = cost.end();
    if (failure) throw new Error(`a watch ended: ${failure}`);
    for (const link of links) link.close();
    return { count: events, perSecond: (events / spent.tookMs) * 1000, responses, errors: 0, errorTexts: [], ...spent };
  }
  openWatchers(undefined);
  await check(60_000);

  const value = filler(valueBytes);
  const writerLinks = await connections({ ...job, connections: job.writerConnections });
  let isStopping = false;
  let puts = 0;
  const writing = writerLinks.flatMap((link, index) =>
    Array.from({ length: job.writerStreams }, (_, stream) => {
      let number = (index * job.writerStreams + stream) * perTxn;
      const stamp = () => {
        const digits = String(Math.round(performance.now() * 1000)).padStart(TIME_BYTES, "0");
        value.latin1Write(digits, valueBytes - TIME_BYTES, TIME_BYTES);
      };
      return new Promise((resolve, reject) => {
        const call = {
          onEnd: (status, text) => {
            if (status !== 0) reject(new Error(`a put failed: ${status} ${text}`));
            else if (isStopping) resolve();
            else again();
          },
        };
        const again = () => {
          stamp();
          puts += perTxn;
          if (perTxn === 1) {
            number = keys > 1 ? Math.floor(Math.random() * keys) : 0;
            link.unary(paths.put, framed(put({ key: keyName(prefix, number), value })), call);
            return;
          }
          const some = [];
          for (let i = 0; i < perTxn; i++) some.push({ key: keyName(prefix, (number + i) % keys), value });
          link.unary(paths.txn, framed(txnOfPuts(some)), call);
        };
        again();
      });
    }),
  );
  await window(job.warmUpSeconds ?? WARM_UP_SECONDS, job.pids);
  const before = { events, responses, puts };
  isCounting = true;
  const cost = new CostWindow(job.pids);
  await window(job.seconds, job.pids);
  isCounting = false;
  const spent = cost.end();
  const count = events - before.events;
  const putCount = puts - before.puts;
  isStopping = true;
  await Promise.all(writing);
  if (failure) throw new Error(`a watch ended: ${failure}`);
  for (const link of [...links, ...writerLinks]) link.close();
  const { count: _, ...latencyMs } = latencies.summary();
  return {
    count,
    perSecond: (count / spent.tookMs) * 1000,
    putsPerSecond: (putCount / spent.tookMs) * 1000,
    responsesPerSecond: ((responses - before.responses) / spent.tookMs) * 1000,
    latencyMs,
    errors: 0,
    errorTexts: [],
    ...spent,
  };
}

/** Reads one key after the other while `action` runs; the longest wait is what it is about. */
async function stall(job) {
  const [reader, actor] = await connections({ ...job, connections: 2 });
  const loop = new ClosedLoop([reader], 1, mixed(job.operations));
  await sleep(500);
  loop.startCounting();
  const cost = new CostWindow(job.pids);
  await sleep(500);
  const begun = performance.now();
  await once(actor, paths[job.action], Buffer.alloc(0));
  const actionMs = performance.now() - begun;
  await sleep(500);
  loop.stopCounting();
  const spent = cost.end();
  await loop.stop();
  reader.close();
  actor.close();
  return { ...loop.findings(spent.tookMs), ...spent, actionMs };
}

/** Nanoseconds of the machine's monotonic clock, which all processes share. */
async function firstRead(job) {
  const deadline = performance.now() + (job.limitMs ?? 120_000);
  const { key = "k/0000000000" } = job;
  for (;;) {
    try {
      const link = await Connection.open(job.endpoints[0]);
      try {
        const answer = await Promise.race([
          once(link, paths.range, range({ key })),
          sleep(60_000).then(() => {
            throw new Error("no answer");
          }),
        ]);
        const at = process.hrtime.bigint();
        if (varintField(answer, 0, answer.length, 4) !== 1 && job.mustFind !== false)
          throw new Error("the key is gone");
        return { atNs: String(at) };
      } finally {
        link.close();
      }
    } catch (error) {
      if (performance.now() > deadline) throw error;
      await sleep(1);
    }
  }
}

async function snapshot(job) {
  const [link] = await connections({ ...job, connections: 1 });
  const file = openSync(job.path, "w");
  const cost = new CostWindow(job.pids);
  let bytes = 0;
  await new Promise((resolve, reject) => {
    const stream = link.stream(paths.snapshot, {
      onMessage: (memory, start, end) => {
        fields(memory, start, end, (number, type, from, to) => {
          if (number !== 3 || type !== 2) return;
          bytes += writeSync(file, memory, from, to - from);
        });
      },
      onEnd: (status, text) => (status === 0 ? resolve() : reject(new Error(`the snapshot ended: ${status} ${text}`))),
    });
    link.send(stream, framed(message()), true);
  });
  fsyncSync(file);
  const spent = cost.end();
  closeSync(file);
  link.close();
  return { bytes, perSecond: (bytes / spent.tookMs) * 1000, errors: 0, errorTexts: [], ...spent };
}

export const jobs = { unary, fill, keepAlive, watch, stall, firstRead, snapshot };
