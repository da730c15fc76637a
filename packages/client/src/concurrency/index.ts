/** Recipes over the client: sessions, locks and elections, in etcd's own key layout. */
export { type Candidacy, Election, type Leadership } from "./election.ts";
export type { Holder, RecipeClient, WaitOptions } from "./holder.ts";
export { Mutex } from "./mutex.ts";
export { DEFAULT_SESSION_TTL_SECONDS, Session, type SessionClient, type SessionOptions } from "./session.ts";
