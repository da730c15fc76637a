// What a command is given: its flags, the world, and ways to a client and a printer that it opens when its arguments
// have been checked.
import type { Client, TlsOptions } from "@etcd-ts/client";
import type { FlagSet } from "./cli/flags.ts";
import type { Io } from "./io.ts";
import type { Printer } from "./print/printer.ts";

/** What commands that only call use of a client. */
export type CallClient = Pick<Client, "call" | "endpoints"> & AsyncDisposable;

/** What commands use of a client that also streams; fakes implement it in tests. */
export type CtlClient = Pick<Client, "call" | "serverStream" | "watch" | "endpoints" | "lease"> & AsyncDisposable;

export interface Connected<C extends CallClient = CallClient> extends AsyncDisposable {
  readonly client: C;
  readonly printer: Printer;
  /** --command-timeout in milliseconds, for those commands that have one. */
  readonly timeoutMs: number;
  /** What the flags say about TLS. */
  readonly tls: TlsOptions | undefined;
}

export interface ConnectOptions {
  /** What the client calls itself in its log. */
  readonly logger?: string;
  /** Instead of those that the flags name. */
  readonly endpoints?: readonly string[];
}

export interface CommandContext {
  readonly flags: FlagSet;
  readonly io: Io;
  /** A client for calls, by the global flags and the environment. @throws ExitError as etcdctl ends then */
  connect(options?: ConnectOptions): Promise<Connected>;
  /** A client that can do everything; it takes longer to load. */
  connectFully(options?: ConnectOptions): Promise<Connected<CtlClient>>;
  /** A client of another cluster, by flags of their own that all begin with `prefix`. */
  connectTo(endpoint: string, prefix: "dest-"): Promise<CtlClient>;
  /** The endpoints that the flags, the environment or DNS name. */
  endpoints(): Promise<readonly string[]>;
  /** Takes the flags' values from the environment too; `connect` and `endpoints` do so by themselves. */
  prepare(): Promise<void>;
  /** The printer alone. @throws ExitError for a format that there is not */
  printer(): Promise<Printer>;
}
