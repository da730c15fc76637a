import { Auth } from "@etcd-ts/client/wire";
import type { CommandContext } from "../context.ts";
import { badArgs } from "../exit.ts";

const isKind = (error: unknown, kind: string): boolean => (error as { kind?: unknown }).kind === kind;

/** `auth enable`; gives the user root its role first, when that is all that is missing. */
export async function runAuthEnable(context: CommandContext, args: readonly string[]): Promise<void> {
  if (args.length > 0) throw badArgs("auth enable command does not accept any arguments");
  await using connected = await context.connect();
  const { client, timeoutMs } = connected;
  const start = context.io.now();
  const options = () => ({ timeoutMs: timeoutMs - (context.io.now() - start) });
  try {
    await client.call(Auth.methods.authEnable, {}, { timeoutMs });
  } catch (error) {
    if (!isKind(error, "RootRoleNotExist")) throw error;
    await client.call(Auth.methods.roleAdd, { name: "root" }, options()).catch((problem: unknown) => {
      if (!isKind(problem, "RoleAlreadyExist")) throw problem;
    });
    await client.call(Auth.methods.userGrantRole, { user: "root", role: "root" }, options());
    await client.call(Auth.methods.authEnable, {}, options());
  }
  context.io.out.write("Authentication Enabled\n");
}

/** `auth disable` */
export async function runAuthDisable(context: CommandContext, args: readonly string[]): Promise<void> {
  if (args.length > 0) throw badArgs("auth disable command does not accept any arguments");
  await using connected = await context.connect();
  const { client, timeoutMs } = connected;
  await client.call(Auth.methods.authDisable, {}, { timeoutMs });
  context.io.out.write("Authentication Disabled\n");
}

/** `auth status` */
export async function runAuthStatus(context: CommandContext, args: readonly string[]): Promise<void> {
  if (args.length > 0) throw badArgs("auth status command does not accept any arguments");
  await using connected = await context.connect();
  const { client, printer, timeoutMs } = connected;
  printer.print("authStatus", await client.call(Auth.methods.authStatus, {}, { timeoutMs }));
}
