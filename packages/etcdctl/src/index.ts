/** etcdctl as a function: `runCli(io)` runs one command line in a world that the caller makes, and gives the exit code. */
export { runCli } from "./cli/run.ts";
export type { Child, ChildEnd, Input, Io, Output } from "./io.ts";
export { processIo } from "./process-io.ts";
