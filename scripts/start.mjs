// `npm start`: installs and builds when needed, then becomes the server on its embedded default
// (data in ./default.etcd, clients on http://localhost:2379). Further arguments go to the server: npm start -- --name x
import path from "node:path";
import { pathToFileURL } from "node:url";
import { ensure, root } from "./ensure.mjs";

try {
  ensure();
} catch (error) {
  process.stderr.write(`etcd-ts: ${error.message}\n`);
  process.exit(1);
}
if (process.argv.length === 2) {
  process.stderr.write(
    [
      "",
      "etcd-ts is starting on http://127.0.0.1:2379; its data is in ./default.etcd. In another terminal:",
      "",
      "  bin/etcdctl put foo bar",
      "  bin/etcdctl get foo",
      "  bin/etcdctl watch foo",
      "",
      "Ctrl-C stops the server.",
      "",
      "",
    ].join("\n"),
  );
}
await import(pathToFileURL(path.join(root, "dist", "etcd.mjs")).href);
