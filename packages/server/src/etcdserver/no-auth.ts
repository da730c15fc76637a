/** Auth that was never switched on: nobody is named and everybody may. */
import { EtcdError } from "@etcd-ts/client/wire";
import { utf8Bytes } from "../lib/bytes.ts";
import { type Backend, encodeCounter } from "../storage/index.ts";
import type { AuthHook } from "./auth-hook.ts";

const AUTH_REVISION = utf8Bytes("authRevision");

/** A store of etcd knows from its first start on at which revision its auth records are. */
export function writeFirstAuthRevision(backend: Backend): void {
  if (backend.has("auth", AUTH_REVISION)) return;
  backend.write((tx) => tx.put("auth", AUTH_REVISION, encodeCounter(1)));
}

export const noAuth: AuthHook = {
  isEnabled: false,
  revision: 1,
  caller: () => undefined,
  checkRange() {},
  checkPut() {},
  checkTxn() {},
  checkAdmin() {},
  checkApply() {},
  apply(_tx, request) {
    if (request.authStatus) return { enabled: false, authRevision: 1 };
    throw new EtcdError("AuthNotEnabled");
  },
  prepare: (request) => request,
  reload() {},
  stop() {},
};
