import { badArgs } from "../exit.ts";

export function runSave(): never {
  throw badArgs("In order to download snapshot use: `etcdctl snapshot save ...`");
}
