// The rows that the table format draws and the simple one joins by commas.
import { hexId, humanBytes } from "../go/strconv.ts";
import { type Answers, alarmNames, enumName } from "./answers.ts";

export interface Rows {
  readonly header: readonly string[];
  readonly rows: readonly (readonly string[])[];
}

export const memberRows = ({ members }: Answers["memberList"]): Rows => ({
  header: ["ID", "Status", "Name", "Peer Addrs", "Client Addrs", "Is Learner"],
  rows: members.map((member) => [
    hexId(member.id),
    member.name === "" ? "unstarted" : "started",
    member.name,
    member.peerUrls.join(","),
    member.clientUrls.join(","),
    String(member.isLearner),
  ]),
});

export const healthRows = (list: Answers["endpointHealth"]): Rows => ({
  header: ["endpoint", "health", "took", "error"],
  rows: list.map(({ endpoint, health, took, error }) => [endpoint, String(health), took, error]),
});

export const statusRows = (list: Answers["endpointStatus"]): Rows => ({
  header: [
    "endpoint",
    "ID",
    "version",
    "db size",
    "is leader",
    "is learner",
    "raft term",
    "raft index",
    "raft applied index",
    "errors",
  ],
  rows: list.map(({ endpoint, status }) => [
    endpoint,
    hexId(status.header?.memberId ?? 0n),
    status.version,
    humanBytes(status.dbSize),
    String(status.leader === (status.header?.memberId ?? 0n)),
    String(status.isLearner),
    String(status.raftTerm),
    String(status.raftIndex),
    String(status.raftAppliedIndex),
    status.errors.join(", "),
  ]),
});

export const hashRows = (list: Answers["endpointHash"]): Rows => ({
  header: ["endpoint", "hash"],
  rows: list.map(({ endpoint, hash }) => [endpoint, String(hash.hash)]),
});

/** An alarm as etcd prints the message, blank at the end included. */
export const alarmText = (alarm: { readonly memberId: bigint; readonly alarm: number }): string => {
  const member = alarm.memberId === 0n ? "" : `memberID:${alarm.memberId} `;
  return alarm.alarm === 0 ? member : `${member}alarm:${enumName(alarmNames, alarm.alarm)} `;
};
