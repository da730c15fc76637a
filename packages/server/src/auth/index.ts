/**
 * Auth: users with passwords or certificates, roles, and the keys that each role may read and write. While it is on, a
 * caller shows a token, which names it, or a client certificate; every request is checked against what its caller may
 * do when it is applied or, for reads, when it is answered.
 *
 * It promises: what is allowed is a function of the log; no password is stored or logged in clear; a change of users or
 * roles makes what was allowed before it void at once.
 */
export { Auth, type AuthOptions, type Login } from "./auth.ts";
export type { AuthStore } from "./auth-store.ts";
export type { WaitForIndex } from "./simple-tokens.ts";
export type { Caller, Credentials, LeaseKeys } from "./types.ts";
