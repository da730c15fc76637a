/** etcdutl: what can be done to an etcd's files while it does not run. */
import fs from "node:fs";
import tty from "node:tty";
import { runCli } from "./cli/run.ts";
import type { Output } from "./io.ts";

/** Written at once and synchronously, so that nothing is lost when the process ends. */
function output(descriptor: number): Output {
  return {
    get isTerminal() {
      return tty.isatty(descriptor);
    },
    write(text) {
      const bytes = Buffer.from(text, "utf8");
      for (let done = 0; done < bytes.length; ) {
        try {
          done += fs.writeSync(descriptor, bytes, done);
        } catch (error) {
          const { code } = error as NodeJS.ErrnoException;
          if (code === "EPIPE") process.exit(141);
          if (code !== "EAGAIN") throw error;
        }
      }
    },
  };
}

process.exitCode = await runCli({ argv: process.argv.slice(2), env: process.env, out: output(1), err: output(2) });
