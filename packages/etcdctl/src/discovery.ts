// Endpoints by DNS: SRV records `_etcd-client-ssl[-NAME]._tcp.DOMAIN` (https) and `_etcd-client[-NAME]._tcp.DOMAIN`.
import dns from "node:dns/promises";

/**
 * Names keep the dot that ends them in DNS: so etcdctl prints them.
 * @throws Error when neither kind of record is there
 */
export async function discoverEndpoints(
  domain: string,
  serviceName: string,
  resolveSrv: (name: string) => Promise<{ name: string; port: number; priority: number }[]> = dns.resolveSrv,
  servers: readonly string[] = dns.getServers(),
): Promise<string[]> {
  const suffix = serviceName === "" ? "" : `-${serviceName}`;
  const kinds = [
    { scheme: "https", record: `_etcd-client-ssl${suffix}._tcp.${domain}` },
    { scheme: "http", record: `_etcd-client${suffix}._tcp.${domain}` },
  ];
  const endpoints: string[] = [];
  const problems: string[] = [];
  for (const { scheme, record } of kinds) {
    try {
      const found = await resolveSrv(record);
      for (const { name, port } of found.toSorted((a, b) => a.priority - b.priority)) {
        endpoints.push(`${scheme}://${name.replace(/\.$/, "")}.:${port}`);
      }
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      const reason = code === "ENOTFOUND" || code === "ENODATA" ? "no such host" : (error as Error).message;
      const [server] = servers;
      const where = server === undefined ? "" : ` on ${/:\d+$/.test(server) ? server : `${server}:53`}`;
      problems.push(`lookup ${record}${where}: ${reason}`);
    }
  }
  if (problems.length === kinds.length) throw new Error(`dns lookup errors: ${problems.join(" and ")}`);
  return endpoints;
}
