// user *: none of these has a time limit of its own.
import { Auth } from "@etcd-ts/client/wire";
import type { CommandContext } from "../context.ts";
import { badArgs } from "../exit.ts";
import type { Io } from "../io.ts";

const oneName = (args: readonly string[], message: string): string => {
  const [name] = args;
  if (name === undefined || args.length > 1) throw badArgs(message);
  return name;
};

/** `user add NAME[:PASSWORD]` */
export async function runUserAdd(context: CommandContext, args: readonly string[]): Promise<void> {
  const given = oneName(args, "user add command requires user name as its argument");
  const { name, password, noPassword } = await newUser(context, given);
  await using connected = await context.connect();
  const { client, printer } = connected;
  const request = { name, password, options: { noPassword } };
  printer.print("userAdd", { ...(await client.call(Auth.methods.userAdd, request)), user: name });
}

async function newUser(
  { flags, io }: CommandContext,
  given: string,
): Promise<{ name: string; password: string; noPassword: boolean }> {
  if (flags.bool("no-password")) return { name: given, password: "", noPassword: true };
  const fromFlag = flags.string("new-user-password");
  if (fromFlag !== "") return { name: given, password: fromFlag, noPassword: false };
  const colon = given.indexOf(":");
  if (colon === 0) throw badArgs("empty user name is not allowed");
  if (colon > 0) return { name: given.slice(0, colon), password: given.slice(colon + 1), noPassword: false };
  return { name: given, password: await newPassword(io, flags.bool("interactive"), given), noPassword: false };
}

/** Asked for twice; or the first word of standard input, which may be empty. */
async function newPassword(io: Io, isInteractive: boolean, user: string): Promise<string> {
  if (!isInteractive) return /^[ \t]*([^ \t]*)/.exec(await io.input.readLine(false))?.[1] ?? "";
  const { askPassword } = await import("../settings.ts");
  const password = await askPassword(io, `Password of ${user}: `);
  if (password === "") throw badArgs("empty password");
  const again = await askPassword(io, `Type password of ${user} again for confirmation: `);
  if (again !== password) throw badArgs("given passwords are different");
  return password;
}

/** `user delete NAME` */
export async function runUserDelete(context: CommandContext, args: readonly string[]): Promise<void> {
  const name = oneName(args, "user delete command requires user name as its argument");
  await using connected = await context.connect();
  const { client, printer } = connected;
  printer.print("userDelete", { ...(await client.call(Auth.methods.userDelete, { name })), user: name });
}

/** `user get NAME [--detail]` */
export async function runUserGet(context: CommandContext, args: readonly string[]): Promise<void> {
  const name = oneName(args, "user get command requires user name as its argument");
  await using connected = await context.connect();
  const { client, printer } = connected;
  const response = await client.call(Auth.methods.userGet, { name });
  if (!context.flags.bool("detail")) {
    printer.print("userGet", { ...response, user: name });
    return;
  }
  context.io.out.write(`User: ${name}\n`);
  for (const role of response.roles) {
    context.io.out.write("\n");
    printer.print("roleGet", { ...(await client.call(Auth.methods.roleGet, { role })), role });
  }
}

/** `user list` */
export async function runUserList(context: CommandContext, args: readonly string[]): Promise<void> {
  if (args.length > 0) throw badArgs("user list command requires no arguments");
  await using connected = await context.connect();
  const { client, printer } = connected;
  printer.print("userList", await client.call(Auth.methods.userList, {}));
}

/** `user passwd NAME` */
export async function runUserPasswd(context: CommandContext, args: readonly string[]): Promise<void> {
  const name = oneName(args, "user passwd command requires user name as its argument");
  const password = await newPassword(context.io, context.flags.bool("interactive"), name);
  await using connected = await context.connect();
  const { client, printer } = connected;
  printer.print("userPasswd", await client.call(Auth.methods.userChangePassword, { name, password }));
}

/** `user grant-role USER ROLE` */
export async function runUserGrantRole(context: CommandContext, args: readonly string[]): Promise<void> {
  const [user, role] = args;
  if (user === undefined || role === undefined || args.length > 2) {
    throw badArgs("user grant command requires user name and role name as its argument");
  }
  await using connected = await context.connect();
  const { client, printer } = connected;
  printer.print("userGrantRole", { ...(await client.call(Auth.methods.userGrantRole, { user, role })), user, role });
}

/** `user revoke-role USER ROLE` */
export async function runUserRevokeRole(context: CommandContext, args: readonly string[]): Promise<void> {
  const [user, role] = args;
  if (user === undefined || role === undefined || args.length > 2) {
    throw badArgs("user revoke-role requires user name and role name as its argument");
  }
  await using connected = await context.connect();
  const { client, printer } = connected;
  const response = await client.call(Auth.methods.userRevokeRole, { name: user, role });
  printer.print("userRevokeRole", { ...response, user, role });
}
