// The versions we speak as, and our own beside them.

declare const __ETCD_TS_VERSION__: string | undefined;

export const version = {
  /** The etcdctl whose behaviour this is. */
  etcd: "3.5.16",
  api: "3.5",
  /** Our own; the bundle knows it. */
  own: typeof __ETCD_TS_VERSION__ === "string" ? __ETCD_TS_VERSION__ : "0.0.0",
} as const;
