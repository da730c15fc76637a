import { Cluster } from "@etcd-ts/client/wire";
import type { CommandContext } from "../context.ts";
import { badArgs, ERROR, ExitError } from "../exit.ts";
import { quote } from "../go/quote.ts";
import { ParseError, parseUint64 } from "../go/strconv.ts";
import { hasHostAndPort, parseUrl, UrlError } from "../go/url.ts";

/** `member list`, as the cluster agrees on it. */
export async function runMemberList(context: CommandContext): Promise<void> {
  await using connected = await context.connect();
  const { client, printer, timeoutMs } = connected;
  printer.print("memberList", await client.call(Cluster.methods.memberList, { linearizable: true }, { timeoutMs }));
}

/** `member add NAME --peer-urls=...`; in the simple format with what the new member's environment must hold. */
export async function runMemberAdd(context: CommandContext, args: readonly string[]): Promise<void> {
  const { flags, io } = context;
  const [name] = args;
  if (name === undefined) throw badArgs("member name not provided");
  if (args.length > 1) {
    const guesses = args.filter((word) => /^http/i.test(word)).map((url) => `, did you mean --peer-urls=${url}`);
    throw badArgs(`too many arguments${guesses.join("")}`);
  }
  const urls = flags.string("peer-urls");
  if (urls === "") throw badArgs("member peer urls not provided");
  const isLearner = flags.bool("learner");
  await using connected = await context.connect();
  const { client, printer, timeoutMs } = connected;
  const request = { peerUrls: checkedUrls(urls), isLearner };
  const response = await client.call(Cluster.methods.memberAdd, request, { timeoutMs });
  printer.print("memberAdd", { ...response, name, peerUrls: urls });
  if (printer.format !== "simple") return;
  const cluster = response.members.flatMap((member) =>
    member.peerUrls.map((url) => `${member.id === response.member?.id ? name : member.name}=${url}`),
  );
  io.out.write(
    `\nETCD_NAME=${quote(name)}\n` +
      `ETCD_INITIAL_CLUSTER=${quote(cluster.join(","))}\n` +
      `ETCD_INITIAL_ADVERTISE_PEER_URLS=${quote(urls)}\n` +
      `ETCD_INITIAL_CLUSTER_STATE="existing"\n`,
  );
}

/** `member remove ID` */
export async function runMemberRemove(context: CommandContext, args: readonly string[]): Promise<void> {
  const id = memberId(args);
  await using connected = await context.connect();
  const { client, printer, timeoutMs } = connected;
  const response = await client.call(Cluster.methods.memberRemove, { id }, { timeoutMs });
  printer.print("memberRemove", { ...response, id });
}

/** `member update ID --peer-urls=...` */
export async function runMemberUpdate(context: CommandContext, args: readonly string[]): Promise<void> {
  const id = memberId(args);
  const urls = context.flags.string("peer-urls");
  if (urls === "") throw badArgs("member peer urls not provided");
  await using connected = await context.connect();
  const { client, printer, timeoutMs } = connected;
  const request = { id, peerUrls: checkedUrls(urls) };
  const response = await client.call(Cluster.methods.memberUpdate, request, { timeoutMs });
  printer.print("memberUpdate", { ...response, id });
}

/** `member promote ID` */
export async function runMemberPromote(context: CommandContext, args: readonly string[]): Promise<void> {
  const id = memberId(args);
  await using connected = await context.connect();
  const { client, printer, timeoutMs } = connected;
  const response = await client.call(Cluster.methods.memberPromote, { id }, { timeoutMs });
  printer.print("memberPromote", { ...response, id });
}

function memberId(args: readonly string[]): bigint {
  const [text] = args;
  if (text === undefined || args.length > 1) throw badArgs("member ID is not provided");
  try {
    return parseUint64(text, 16);
  } catch (error) {
    if (!(error instanceof ParseError)) throw error;
    throw badArgs(`bad member ID arg (${error.message}), expecting ID in Hex`);
  }
}

/** Peer URLs as they are typed, looked at before anybody is asked. @throws ExitError 1 */
export function checkedUrls(text: string): string[] {
  const refuse = (message: string): ExitError => new ExitError(ERROR, message);
  const urls = text.split(",");
  for (const given of urls) {
    const url = given.trim();
    try {
      const { scheme, host, path } = parseUrl(url);
      if (scheme === "http" || scheme === "https") {
        if (!hasHostAndPort(host)) throw refuse(`URL address does not have the form "host:port": ${url}`);
        if (path !== "") throw refuse(`URL must not contain a path: ${url}`);
      } else if (scheme !== "unix" && scheme !== "unixs") {
        throw refuse(`URL scheme must be http, https, unix, or unixs: ${url}`);
      }
    } catch (error) {
      throw error instanceof UrlError ? refuse(error.message) : error;
    }
  }
  return urls;
}
