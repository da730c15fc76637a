/** Auth: everything is the server's. */
import { Auth } from "@etcd-ts/client/wire";
import { type ServiceRegistration, serve } from "../../rpc/index.ts";
import { type ApiDeps, callerOf } from "./context.ts";

export function authService({ server }: ApiDeps): ServiceRegistration {
  return serve(Auth, {
    authEnable: (request, call) => server.authEnable(request, callerOf(call)),
    authDisable: (request, call) => server.authDisable(request, callerOf(call)),
    authStatus: (request, call) => server.authStatus(request, callerOf(call)),
    authenticate: (request, call) => server.authenticate(request, callerOf(call)),
    userAdd: (request, call) => server.userAdd(request, callerOf(call)),
    userGet: (request, call) => server.userGet(request, callerOf(call)),
    userList: (request, call) => server.userList(request, callerOf(call)),
    userDelete: (request, call) => server.userDelete(request, callerOf(call)),
    userChangePassword: (request, call) => server.userChangePassword(request, callerOf(call)),
    userGrantRole: (request, call) => server.userGrantRole(request, callerOf(call)),
    userRevokeRole: (request, call) => server.userRevokeRole(request, callerOf(call)),
    roleAdd: (request, call) => server.roleAdd(request, callerOf(call)),
    roleGet: (request, call) => server.roleGet(request, callerOf(call)),
    roleList: (request, call) => server.roleList(request, callerOf(call)),
    roleDelete: (request, call) => server.roleDelete(request, callerOf(call)),
    roleGrantPermission: (request, call) => server.roleGrantPermission(request, callerOf(call)),
    roleRevokePermission: (request, call) => server.roleRevokePermission(request, callerOf(call)),
  });
}
