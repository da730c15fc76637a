/**
 * What this room needs of auth: who is calling, and whether that one may. `server/auth` implements it; until auth is
 * switched on, everybody may do everything.
 */
import type { PutRequest, TxnRequest } from "@etcd-ts/client/wire";
import type { InternalRaftRequest, RequestHeader } from "../pb/etcdserverpb.ts";
import type { BackendReader, BackendTxn } from "../storage/index.ts";
import type { RequestContext } from "./door.ts";

/** A caller whose credentials were checked, at one revision of the auth store. */
export interface Caller {
  readonly username: string;
  readonly authRevision: number;
}

export interface AuthHook {
  readonly isEnabled: boolean;
  /** 0 while there is no auth store. */
  readonly revision: number;
  /** Who calls; undefined when nobody is named or auth is off. Throws for bad credentials. May wait for apply. */
  caller(ctx: RequestContext): Caller | undefined | Promise<Caller | undefined>;
  /** Throws unless the caller may read [key, rangeEnd). */
  checkRange(caller: Caller | undefined, key: Uint8Array, rangeEnd: Uint8Array): void;
  checkPut(caller: Caller | undefined, request: PutRequest): void;
  checkTxn(caller: Caller | undefined, request: TxnRequest): void;
  /** Throws unless the caller has the role root. */
  checkAdmin(caller: Caller | undefined): void;
  /** At apply: may who is named in the header do this? Throws EtcdError. */
  checkApply(request: InternalRaftRequest, header: RequestHeader | undefined): void;
  /** Applies an auth request and gives its response without header; undefined when the request is not one. */
  apply(tx: BackendTxn, request: InternalRaftRequest, index: number): unknown;
  /** Completes a request before it is proposed: hashes a new password, checks the one of Authenticate. */
  prepare(request: InternalRaftRequest): InternalRaftRequest | Promise<InternalRaftRequest>;
  /** After an installed snapshot. */
  reload(reader: BackendReader): void;
  stop(): void;
}
