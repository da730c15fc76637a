/**
 * What a service is, to those who write one: a table of plain functions. A handler sees decoded messages, a
 * {@link CallContext} and, when it answers with a stream, a {@link ResponseSink}; it cannot tell which transport
 * carries the call, and the transports (grpc-js, and HTTP/2 of our own) know nothing of etcd.
 */
import { type Outcome, yieldToEventLoop } from "../lib/wait.ts";
import type { StatusError } from "./status.ts";

export type MethodKind = "unary" | "serverStream" | "clientStream" | "bidi";

/** The half of a generated message codec that reads. */
export interface MessageDecoder<T = unknown> {
  readonly typeName: string;
  decode(bytes: Uint8Array): T;
}

/** The half of a generated message codec that writes. */
export interface MessageEncoder<I = never> {
  readonly typeName: string;
  encode(init: I): Uint8Array;
}

export interface MethodDescriptor {
  /** `/package.Service/Method` */
  readonly path: string;
  readonly kind: MethodKind;
  readonly request: MessageDecoder;
  readonly response: MessageEncoder;
}

export interface ServiceDescriptor {
  /** `package.Service` */
  readonly typeName: string;
  readonly methods: Readonly<Record<string, MethodDescriptor>>;
}

export type RequestOf<M extends MethodDescriptor> = M["request"] extends { decode(bytes: Uint8Array): infer R }
  ? R
  : never;
export type ResponseOf<M extends MethodDescriptor> = M["response"] extends { encode(init: infer I): Uint8Array }
  ? I
  : never;

/** An answer that is bytes already, in pieces that are sent one after the other. The pieces must not change again. */
export class EncodedMessage {
  readonly pieces: readonly Uint8Array[];
  readonly byteLength: number;
  /** How many things the answer tells of, for the log; undefined: nobody counted. */
  readonly items: number | undefined;

  constructor(pieces: readonly Uint8Array[], items?: number) {
    this.pieces = pieces;
    this.items = items;
    let byteLength = 0;
    for (const piece of pieces) byteLength += piece.length;
    this.byteLength = byteLength;
  }
}

/**
 * An answer too large to be held: its length is known, its bytes are made while it is sent, as quickly as the caller reads.
 * A failure in between can only be told by cutting the call off.
 */
export class StreamedMessage {
  readonly byteLength: number;
  /** As {@link EncodedMessage.items}. */
  readonly items: number | undefined;
  readonly #pieces: () => Iterable<readonly Uint8Array[]>;
  /** To be awaited between two parts, so that a quick caller keeps nobody waiting. */
  readonly giveWay: () => Promise<void>;

  /** `pieces` gives `byteLength` bytes in all, some at a time. */
  constructor(
    byteLength: number,
    pieces: () => Iterable<readonly Uint8Array[]>,
    options: { readonly items?: number; readonly giveWay?: () => Promise<void> } = {},
  ) {
    this.byteLength = byteLength;
    this.#pieces = pieces;
    this.items = options.items;
    this.giveWay = options.giveWay ?? yieldToEventLoop;
  }

  pieces(): Iterable<readonly Uint8Array[]> {
    return this.#pieces();
  }

  /** All of it at once, for carriers that cannot send in parts. */
  whole(): EncodedMessage {
    return new EncodedMessage([...this.#pieces()].flat());
  }
}

/** The peer at the other end of a connection. */
export interface PeerInfo {
  /** `127.0.0.1:51234`; `@` for a unix socket, as Go prints it. */
  readonly address: string;
  readonly isTls: boolean;
  /** Subject CN of the verified client certificate; undefined when none was presented. */
  readonly commonName: string | undefined;
}

export interface CallMetadata {
  /** First value of a header, or undefined. `name` is lower-case. */
  get(name: string): string | undefined;
  getAll(name: string): readonly string[];
}

export interface CallContext {
  readonly path: string;
  readonly kind: MethodKind;
  readonly metadata: CallMetadata;
  readonly peer: PeerInfo;
  /**
   * Aborted when the caller cancels, its connection ends, its deadline passes, or the server closes. The reason is a
   * {@link StatusError}. Made on first use: a handler that answers at once should not ask for it.
   */
  readonly signal: AbortSignal;
  /** On the server's monotonic clock, in ms; undefined when the caller set none. */
  readonly deadlineMs: number | undefined;
}

/** Where a streaming handler puts its answers. */
export interface ResponseSink<T> {
  /**
   * Queues one message. False: the caller does not keep up; wait for {@link drained} before the next one. Throws the
   * call's {@link StatusError} when the call is over.
   */
  write(message: T | EncodedMessage): boolean;
  /** Resolves when there is room again; rejects with the call's status error when the call is over. */
  drained(): Promise<void>;
  /**
   * Resolves when all that was written has left: pieces may change then. Rejects as {@link drained} does. A carrier without
   * it has copied what it was given, if that was of several pieces.
   */
  sent?(): Promise<void>;
  /** Sends the response headers now, without waiting for the first message. */
  flushHeaders(): void;
}

export type UnaryAnswer<M extends MethodDescriptor> = ResponseOf<M> | EncodedMessage | StreamedMessage;

export type UnaryHandler<M extends MethodDescriptor> = (
  request: RequestOf<M>,
  context: CallContext,
) => UnaryAnswer<M> | Promise<UnaryAnswer<M>> | Outcome<UnaryAnswer<M>>;

/** `requests` ends when the caller half-closes and throws the call's status error when the call is over. */
export type StreamHandler<M extends MethodDescriptor> = (
  requests: AsyncIterable<RequestOf<M>>,
  out: ResponseSink<ResponseOf<M>>,
  context: CallContext,
) => Promise<void>;

export type HandlerFor<M extends MethodDescriptor> = M["kind"] extends "unary" ? UnaryHandler<M> : StreamHandler<M>;

/** The table of a service's handlers, keyed as in its descriptor. */
export type ServiceHandlers<S extends ServiceDescriptor> = {
  readonly [K in keyof S["methods"]]: HandlerFor<S["methods"][K]>;
};

/** A service joined to its handlers, with the types forgotten: what transports work on. */
export interface ServiceRegistration {
  readonly service: ServiceDescriptor;
  readonly handlers: Readonly<Record<string, unknown>>;
}

/** Checks the table against the descriptor and forgets the types. */
export function serve<S extends ServiceDescriptor>(service: S, handlers: ServiceHandlers<S>): ServiceRegistration {
  return { service, handlers: handlers as Readonly<Record<string, unknown>> };
}

/** Looked at by every transport, in this order, for each call. Everything here must be quick. */
export interface CallHooks {
  /** Before the handler runs. Throws to refuse the call. */
  admit?(context: CallContext): void;
  /** Payload bytes of a message, without the five bytes of gRPC framing. */
  received?(context: CallContext, byteLength: number): void;
  sent?(context: CallContext, byteLength: number): void;
  started?(context: CallContext): void;
  /** Exactly once for each call that was admitted. `error` is undefined for OK. */
  ended?(context: CallContext, error: StatusError | undefined): void;
}
