// The few messages that the bench sends and reads, by hand: what the generator costs is taken from the servers' share.

export function varint(value) {
  const bytes = [];
  let left = typeof value === "bigint" ? BigInt.asUintN(64, value) : value;
  if (typeof left === "bigint") {
    for (; left > 127n; left >>= 7n) bytes.push(Number(left & 127n) | 128);
  } else {
    for (; left > 127; left = Math.floor(left / 128)) bytes.push((left % 128) + 128);
  }
  bytes.push(Number(left));
  return Buffer.from(bytes);
}

/** A message of [field number, value]: numbers and bigints as varints, strings and buffers as bytes; 0 is left out. */
export function message(...fields) {
  const parts = [];
  for (const [number, value] of fields) {
    if (value === undefined || value === 0 || value === false) continue;
    if (typeof value === "number" || typeof value === "bigint" || value === true) {
      parts.push(varint(number * 8), varint(value === true ? 1 : value));
    } else {
      const bytes = Buffer.from(value);
      parts.push(varint(number * 8 + 2), varint(bytes.length), bytes);
    }
  }
  return Buffer.concat(parts);
}

export const put = ({ key, value, lease }) => message([1, key], [2, value], [3, lease]);

export const range = (request) =>
  message(
    [1, request.key],
    [2, request.rangeEnd],
    [3, request.limit],
    [7, request.serializable],
    [8, request.keysOnly],
    [9, request.countOnly],
  );

const requestOp = (number, body) => message([number, body]);

/** Compare on the version (EQUAL 0 never holds for what exists; GREATER than -1 always does), then put and get. */
export function txn({ key, value }) {
  const GREATER = 1;
  const compare = message([1, GREATER], [3, key], [4, -1n]);
  return message([1, compare], [2, requestOp(2, put({ key, value }))], [2, requestOp(1, range({ key }))]);
}

export const txnOfPuts = (puts) => message(...puts.map((one) => [2, requestOp(2, put(one))]));

export const watchCreate = ({ key, rangeEnd, startRevision, watchId }) =>
  message([1, message([1, key], [2, rangeEnd], [3, startRevision], [7, watchId])]);

export const leaseGrant = ({ ttl, id }) => message([1, ttl], [2, id]);
export const leaseKeepAlive = ({ id }) => message([1, id]);

/** Calls `visit(number, wireType, start, end)` for each field of a message; for a varint `start` is its value. */
export function fields(bytes, from, end, visit) {
  let at = from;
  const read = () => {
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      const byte = bytes[at++];
      value += (byte & 127) * scale;
      if (byte < 128) return value;
    }
  };
  while (at < end) {
    const tag = read();
    const type = tag & 7;
    if (type === 0) visit(tag >>> 3, 0, read(), 0);
    else if (type === 2) {
      const length = read();
      visit(tag >>> 3, 2, at, at + length);
      at += length;
    } else if (type === 1) at += 8;
    else if (type === 5) at += 4;
    else throw new Error(`wire type ${type}`);
  }
}

/** The value of the first varint field `number`, or 0. */
export function varintField(bytes, start, end, number) {
  let found = 0;
  fields(bytes, start, end, (field, type, value) => {
    if (field === number && type === 0) found = value;
  });
  return found;
}

export const paths = {
  put: "/etcdserverpb.KV/Put",
  range: "/etcdserverpb.KV/Range",
  txn: "/etcdserverpb.KV/Txn",
  compact: "/etcdserverpb.KV/Compact",
  watch: "/etcdserverpb.Watch/Watch",
  leaseGrant: "/etcdserverpb.Lease/LeaseGrant",
  leaseKeepAlive: "/etcdserverpb.Lease/LeaseKeepAlive",
  defragment: "/etcdserverpb.Maintenance/Defragment",
  snapshot: "/etcdserverpb.Maintenance/Snapshot",
  status: "/etcdserverpb.Maintenance/Status",
};
