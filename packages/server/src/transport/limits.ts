/** Bounds and periods of this room. Sources: etcd 3.5 `server/etcdserver/api/rafthttp`, unless said otherwise. */

/** Heartbeats of a link in the time after which its reader gives it up. */
export const LINK_HEARTBEATS = 3;

/** A stream is dialled at most this often. */
export const DIAL_INTERVAL_MS = 100;

export const PROBE_INTERVAL_MS = 4000;

/** Drift of a peer's clock beyond which a warning is logged. */
export const CLOCK_DRIFT_MS = 1000;

/** Requests under way at a time over a peer's pipeline, and messages waiting for it; more are dropped. */
export const PIPELINE_REQUESTS_MAX = 4;
export const PIPELINE_WAITING_MAX = 64;

/**
 * Bytes that may wait for a stream's socket; then messages are dropped and raft is told. Our own: etcd bounds 4096
 * messages, each of up to 1 MiB.
 */
export const STREAM_WAITING_BYTES_MAX = 64 * 1024 * 1024;

/** The longest message on a stream or the pipeline. */
export const MESSAGE_BYTES_MAX = 512 * 1024 * 1024;

/** The message in front of a database on the snapshot channel. Our own: Node has no larger buffers on every platform. */
export const SNAPSHOT_MESSAGE_BYTES_MAX = 1024 * 1024 * 1024;

/** Snapshots on their way to peers. */
export const SNAPSHOTS_IN_FLIGHT_MAX = 16;

/** How long a receiver may take nothing of a snapshot that is being sent. Our own; etcd: 5 s. */
export const SNAPSHOT_WRITE_TIMEOUT_MS = 30_000;

/** How long a receiver may take to make a snapshot durable after the last byte. Our own; etcd waits for ever. */
export const SNAPSHOT_ANSWER_TIMEOUT_MS = 10 * 60_000;

/** Bytes of other answers and bodies between members. Our own. */
export const BODY_BYTES_MAX = 16 * 1024 * 1024;

/** Remotes that are not members (yet), kept to be able to answer them. Our own. */
export const REMOTES_MAX = 128;
