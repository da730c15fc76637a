/** The release of etcd whose behaviour, formats and protocol this server has: what clients and peers compare. */
export const ETCD_VERSION = "3.5.16";

declare const __ETCD_TS_VERSION__: string | undefined;

/** Our own version, put in by the build; `dev` when run from source. */
export const OWN_VERSION: string = typeof __ETCD_TS_VERSION__ === "string" ? __ETCD_TS_VERSION__ : "dev";
