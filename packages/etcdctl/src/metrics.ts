// Reads a server's metrics page.
import http from "node:http";
import https from "node:https";
import type { TlsOptions } from "@etcd-ts/client";

const METRIC = "process_resident_memory_bytes";

/** @throws Error with a line to print */
export async function residentMemoryBytes(endpoint: string, tls: TlsOptions | undefined): Promise<number> {
  const host = endpoint.replace(/^[a-z]+:\/\//, "");
  const isTls = endpoint.startsWith("https://") || (tls !== undefined && !endpoint.startsWith("http://"));
  const url = `${isTls ? "https" : "http"}://${host}/metrics`;
  const page = await fetchText(url, tls).catch((error: unknown) => {
    throw new Error(`fetch error: ${(error as Error).message}`);
  });
  const line = page.split("\n").find((text) => text.startsWith(METRIC));
  if (line === undefined) throw new Error(`could not find: ${METRIC}`);
  const value = Number(line.slice(METRIC.length).trim());
  if (!(value > 0)) throw new Error(`parse error: ${line}`);
  return value;
}

function fetchText(url: string, tls: TlsOptions | undefined): Promise<string> {
  const options: https.RequestOptions = {
    ...(tls?.ca ? { ca: Buffer.from(tls.ca) } : {}),
    ...(tls?.cert ? { cert: Buffer.from(tls.cert) } : {}),
    ...(tls?.key ? { key: Buffer.from(tls.key) } : {}),
    ...(tls?.skipVerify ? { rejectUnauthorized: false } : {}),
    timeout: 30_000,
  };
  return new Promise((resolve, reject) => {
    const request = (url.startsWith("https:") ? https : http).get(url, options, (response) => {
      let text = "";
      response.setEncoding("utf8");
      response.on("data", (chunk: string) => {
        text += chunk;
      });
      response.on("end", () => resolve(text));
      response.on("error", reject);
    });
    request.on("timeout", () => request.destroy(new Error("timeout")));
    request.on("error", reject);
  });
}
