/**
 * What one connection may cost. Honest clients stay far below these; each is there against one kind of abuse.
 */

/** Room a client has for sending on one connection before it must wait for us. */
export const CONNECTION_WINDOW_BYTES = 4 * 1024 * 1024;
/** The same for one stream. A request's message larger than this goes in several breaths. */
export const STREAM_WINDOW_BYTES = 512 * 1024;
/** We give back window once so much of it has been used. */
export const WINDOW_RETURN_BYTES = STREAM_WINDOW_BYTES / 4;
/** Request bytes of all streams of a connection that wait to be complete or to be read. */
export const RECEIVE_BUFFER_BYTES_MAX = 64 * 1024 * 1024;
/** One header block as it comes, HEADERS and CONTINUATION frames together. */
export const HEADER_BLOCK_BYTES_MAX = 64 * 1024;
/** Names and values of one header block, as RFC 9113 section 6.5.2 counts them; announced. */
export const HEADER_LIST_BYTES_MAX = 64 * 1024;
/** CONTINUATION frames of one header block. */
export const CONTINUATIONS_MAX = 16;

/** Streams that a client may reset without having been answered, beyond those that ended well: at once ... */
export const RESETS_BURST = 1_000;
/** ... and a second, on top. Rapid reset (CVE-2023-44487) ends the connection. */
export const RESETS_PER_SECOND = 200;
/** SETTINGS, PING, PRIORITY, WINDOW_UPDATE on nothing, empty DATA and unknown frames: at once ... */
export const IDLE_FRAMES_BURST = 10_000;
/** ... and a second, on top. */
export const IDLE_FRAMES_PER_SECOND = 1_000;

/** Pings that come too soon, before a client is told to go away (grpc-go's number). */
export const PING_STRIKES_MAX = 2;
/** Pings on a connection without streams may come no closer than this (grpc-go's number). */
export const IDLE_PING_INTERVAL_MS = 2 * 60 * 60 * 1000;

/** Bytes of one stream that wait for window or socket before its handler is told to pause. */
export const STREAM_QUEUE_BYTES = 64 * 1024;
/** Bytes in the socket's own queue above which streams wait their turn. */
export const SOCKET_QUEUE_BYTES = 1024 * 1024;

/** Time a client has to send its preface and SETTINGS. */
export const HANDSHAKE_TIMEOUT_MS = 120_000;
/** Time a client has to close its side after we have said GOAWAY and closed ours. */
export const LINGER_TIMEOUT_MS = 5_000;
