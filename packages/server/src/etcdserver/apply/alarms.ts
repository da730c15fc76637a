/** Alarms: what is wrong with which member, stored in table `alarm` and the same on every member. */
import { AlarmMember, AlarmType } from "@etcd-ts/client/wire";
import { EMPTY_BYTES } from "../../lib/bytes.ts";
import type { BackendReader, BackendTxn } from "../../storage/index.ts";

export class AlarmStore {
  #alarms: AlarmMember[] = [];

  static open(reader: BackendReader): AlarmStore {
    const store = new AlarmStore();
    store.reload(reader);
    return store;
  }

  private constructor() {}

  reload(reader: BackendReader): void {
    this.#alarms = [];
    reader.scan("alarm", {}, (key) => {
      this.#alarms.push(AlarmMember.decode(key));
    });
    this.#sort();
  }

  /** Those of one type, or all for type None; ordered by type, then member. */
  get(type: number): AlarmMember[] {
    return this.#alarms.filter((alarm) => type === AlarmType.None || alarm.alarm === type);
  }

  has(type: number): boolean {
    for (const alarm of this.#alarms) if (alarm.alarm === type) return true;
    return false;
  }

  /** Harmless when it is raised already. */
  activate(tx: BackendTxn, alarm: AlarmMember): void {
    if (this.#find(alarm)) return;
    this.#alarms.push(AlarmMember.create(alarm));
    this.#sort();
    tx.put("alarm", AlarmMember.encode(alarm), EMPTY_BYTES);
  }

  /** False when there is no such alarm. */
  deactivate(tx: BackendTxn, alarm: AlarmMember): boolean {
    const known = this.#find(alarm);
    if (!known) return false;
    this.#alarms = this.#alarms.filter((other) => other !== known);
    tx.delete("alarm", AlarmMember.encode(known));
    return true;
  }

  #find(alarm: AlarmMember): AlarmMember | undefined {
    return this.#alarms.find((other) => other.memberId === alarm.memberId && other.alarm === alarm.alarm);
  }

  #sort(): void {
    this.#alarms.sort((a, b) => a.alarm - b.alarm || (a.memberId < b.memberId ? -1 : a.memberId > b.memberId ? 1 : 0));
  }
}

export function alarmName(type: number): string {
  const name = Object.entries(AlarmType).find(([, value]) => value === type)?.[0];
  return name?.toUpperCase() ?? String(type);
}
