// etcdctl's way into the world: the one file that touches the process. argv in, exit code out.
import { runCli } from "./cli/run.ts";
import { isUnderNohup, processIo } from "./process-io.ts";

// What Node thinks of a library's habits is not for the user of a tool.
process.noDeprecation = true;
if (isUnderNohup(process.env)) process.on("SIGHUP", () => {});
// Bundled as CommonJS, which knows no await up here.
void runCli(processIo(process.argv.slice(2))).then((code) => process.exit(code));
