/** Auth that was never switched on: nobody is named and everybody may. */
import { EtcdError } from "@etcd-ts/client/wire";
import type { AuthHook } from "./auth-hook.ts";

export const noAuth: AuthHook = {
  isEnabled: false,
  revision: 0,
  caller: () => undefined,
  checkRange() {},
  checkPut() {},
  checkTxn() {},
  checkAdmin() {},
  checkApply() {},
  apply(_tx, request) {
    if (request.authStatus) return { enabled: false, authRevision: 0 };
    throw new EtcdError("AuthNotEnabled");
  },
  prepare: (request) => request,
  reload() {},
  stop() {},
};
