/** What this room needs of others, and what it says of a caller. */

/** A caller whose credentials were checked, at one revision of the auth store. */
export interface Caller {
  readonly username: string;
  readonly authRevision: number;
}

/** What a request brings along to say who sends it. */
export interface Credentials {
  readonly signal?: AbortSignal | undefined;
  /** The text of metadata `token`, or else `authorization`. */
  readonly token?: string | undefined;
  /** The subject CN of a verified client certificate; empty when the certificate has none. */
  readonly certCommonName?: string | undefined;
  /** The call came through the JSON gateway, where the certificate is not taken for the caller's. */
  readonly isFromGateway?: boolean | undefined;
  /** The member itself asks: it may do everything. Never set for what came over a connection. */
  readonly asRoot?: true | undefined;
}

/** Which keys a lease has: mvcc's to know. */
export interface LeaseKeys {
  /** Ascending; empty for a lease without keys and for one that does not exist. */
  keysOfLease(id: bigint): Iterable<Uint8Array>;
}
