// role *: none of these has a time limit of its own.
import { Auth } from "@etcd-ts/client/wire";
import type { FlagSet } from "../cli/flags.ts";
import type { CommandContext } from "../context.ts";
import { badArgs } from "../exit.ts";
import { fromBytes, toBytes } from "../go/bytes.ts";
import { prefixEnd } from "../keys.ts";

const oneRole = (args: readonly string[], command: string): string => {
  const [role] = args;
  if (role === undefined || args.length > 1)
    throw badArgs(`role ${command} command requires role name as its argument`);
  return role;
};

/** `role add ROLE` */
export async function runRoleAdd(context: CommandContext, args: readonly string[]): Promise<void> {
  const role = oneRole(args, "add");
  await using connected = await context.connect();
  const { client, printer } = connected;
  printer.print("roleAdd", { ...(await client.call(Auth.methods.roleAdd, { name: role })), role });
}

/** `role delete ROLE` */
export async function runRoleDelete(context: CommandContext, args: readonly string[]): Promise<void> {
  const role = oneRole(args, "delete");
  await using connected = await context.connect();
  const { client, printer } = connected;
  printer.print("roleDelete", { ...(await client.call(Auth.methods.roleDelete, { role })), role });
}

/** `role get ROLE` */
export async function runRoleGet(context: CommandContext, args: readonly string[]): Promise<void> {
  const role = oneRole(args, "get");
  await using connected = await context.connect();
  const { client, printer } = connected;
  printer.print("roleGet", { ...(await client.call(Auth.methods.roleGet, { role })), role });
}

/** `role list` */
export async function runRoleList(context: CommandContext, args: readonly string[]): Promise<void> {
  if (args.length > 0) throw badArgs("role list command requires no arguments");
  await using connected = await context.connect();
  const { client, printer } = connected;
  printer.print("roleList", await client.call(Auth.methods.roleList, {}));
}

const permissionTypes: Readonly<Record<string, number>> = { READ: 0, WRITE: 1, READWRITE: 2 };

/** `role grant-permission ROLE TYPE KEY [END]` */
export async function runRoleGrantPermission(context: CommandContext, args: readonly string[]): Promise<void> {
  const [role, type, ...range] = args;
  if (role === undefined || type === undefined || range.length === 0) {
    throw badArgs("role grant command requires role name, permission type, and key [endkey] as its argument");
  }
  const permType = permissionTypes[type.toUpperCase()];
  if (permType === undefined) throw badArgs(`invalid permission type: ${type}`);
  const { key, rangeEnd } = permissionRange(context.flags, range);
  await using connected = await context.connect();
  const { client, printer } = connected;
  const request = { name: role, perm: { permType, key: toBytes(key), rangeEnd: toBytes(rangeEnd) } };
  printer.print("roleGrantPermission", { ...(await client.call(Auth.methods.roleGrantPermission, request)), role });
}

/** `role revoke-permission ROLE KEY [END]` */
export async function runRoleRevokePermission(context: CommandContext, args: readonly string[]): Promise<void> {
  const [role, ...range] = args;
  const [given] = range;
  if (role === undefined || given === undefined) {
    throw badArgs("role revoke-permission command requires role name and key [endkey] as its argument");
  }
  const { key, rangeEnd } = permissionRange(context.flags, range);
  await using connected = await context.connect();
  const { client, printer } = connected;
  const request = { role, key: toBytes(key), rangeEnd: toBytes(rangeEnd) };
  const response = await client.call(Auth.methods.roleRevokePermission, request);
  printer.print("roleRevokePermission", { ...response, role, key: given, rangeEnd });
}

/** An empty key stands for the first possible one, and with a flag for all keys. @throws ExitError 128 */
export function permissionRange(flags: FlagSet, args: readonly string[]): { key: string; rangeEnd: string } {
  const [key = "", end] = args;
  const prefix = flags.bool("prefix");
  const fromKey = flags.bool("from-key");
  if (key === "") {
    if (prefix && fromKey) throw badArgs("--from-key and --prefix flags are mutually exclusive");
    return { key: "\0", rangeEnd: prefix || fromKey ? "\0" : "" };
  }
  if (end !== undefined) {
    if (prefix) throw badArgs("unexpected endkey argument with --prefix flag");
    if (fromKey) throw badArgs("unexpected endkey argument with --from-key flag");
    return { key, rangeEnd: end };
  }
  if (prefix && fromKey) throw badArgs("--from-key and --prefix flags are mutually exclusive");
  if (prefix) return { key, rangeEnd: fromBytes(prefixEnd(toBytes(key))) };
  return { key, rangeEnd: fromKey ? "\0" : "" };
}
