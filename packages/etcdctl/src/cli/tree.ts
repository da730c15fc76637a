// Every command of etcdctl: names, flags, help. Nothing here is loaded but text; the code comes with `load`.
import type { CommandSpec, Run } from "./command.ts";
import type { FlagSpec } from "./flags.ts";

const flag = (name: string, usage: string): FlagSpec => ({ name, type: "bool", usage });
const text = (name: string, preset: string, usage: string): FlagSpec => ({
  name,
  type: "string",
  default: preset,
  usage,
});

export const globalFlags: readonly FlagSpec[] = [
  {
    name: "endpoints",
    type: "stringSlice",
    default: "127.0.0.1:2379",
    usage: "where the cluster is: host:port, URLs, comma separated",
  },
  flag("debug", "log what the client does, settings first, on standard error"),
  {
    name: "write-out",
    short: "w",
    type: "string",
    default: "simple",
    usage: "output format: simple, json, fields, table, protobuf; also jsonl, yaml",
  },
  flag("hex", "print bytes as \\x61\\x62"),
  {
    name: "dial-timeout",
    type: "duration",
    default: "2s",
    usage: "how long making the client may take, authentication included",
  },
  {
    name: "command-timeout",
    type: "duration",
    default: "5s",
    usage: "how long a command may take, dialling not counted",
  },
  {
    name: "keepalive-time",
    type: "duration",
    default: "2s",
    usage: "a silent connection is probed after this long, at least 10s",
  },
  {
    name: "keepalive-timeout",
    type: "duration",
    default: "6s",
    usage: "a probe that is not answered this long ends the connection",
  },
  {
    name: "insecure-transport",
    type: "bool",
    default: "true",
    usage: "no TLS unless a certificate, CA or https:// asks for it",
  },
  { name: "insecure-discovery", type: "bool", default: "true", usage: "take plain endpoints from SRV records too" },
  flag("insecure-skip-tls-verify", "do not verify the server's certificate (for tests only)"),
  text("cert", "", "client certificate file"),
  text("key", "", "client key file"),
  text("cacert", "", "verify the server's certificate by the CAs in this file"),
  text("user", "", "name[:password]; without a password it is asked for"),
  text("password", "", "password; --user is then the whole name"),
  {
    name: "discovery-srv",
    short: "d",
    type: "string",
    default: "",
    usage: "find the endpoints by the SRV records of this domain",
  },
  text("discovery-srv-name", "", "service name that the SRV records carry"),
  { ...text("password-file", "", "read the password from the first line of this file"), own: true },
  { ...text("errors", "text", "text, or json: an error is one JSON object on standard error"), own: true },
  { ...text("color", "auto", "auto, always or never; auto looks at the terminal, NO_COLOR and TERM"), own: true },
];

const leaf = (
  name: string,
  usage: string,
  short: string,
  load: () => Promise<Run>,
  rest: Omit<CommandSpec, "name" | "usage" | "short" | "load">,
): CommandSpec => ({ name, usage, short, load, ...rest });

export const getFlags: readonly FlagSpec[] = [
  text("consistency", "l", "l: linearizable; s: serializable, what the asked member knows"),
  text("order", "", "ASCEND (default) or DESCEND"),
  text("sort-by", "", "CREATE, KEY, MODIFY, VALUE or VERSION"),
  { name: "limit", type: "int64", usage: "at most this many keys; 0 is no limit" },
  flag("prefix", "all keys that begin with KEY"),
  flag("from-key", "all keys from KEY on, in byte order"),
  { name: "rev", type: "int64", usage: "as of this revision" },
  flag("keys-only", "leave the values out"),
  flag("count-only", "only the number of keys"),
  flag("print-value-only", "only values, with the simple format"),
];

export const putFlags: readonly FlagSpec[] = [
  text("lease", "0", "attach the key to this lease (hexadecimal)"),
  flag("prev-kv", "print what was there before"),
  flag("ignore-value", "keep the value the key has"),
  flag("ignore-lease", "keep the lease the key has"),
];

export const delFlags: readonly FlagSpec[] = [
  flag("prefix", "all keys that begin with KEY"),
  flag("prev-kv", "print what is deleted"),
  flag("from-key", "all keys from KEY on, in byte order"),
  flag("range", "a range is meant: no remark about it"),
  { ...flag("yes", "do not ask before deleting a range on a terminal"), own: true },
];

export const watchFlags: readonly FlagSpec[] = [
  { name: "interactive", short: "i", type: "bool", usage: "read watch requests from standard input" },
  flag("prefix", "all keys that begin with KEY"),
  { name: "rev", type: "int64", usage: "start at this revision" },
  flag("prev-kv", "also what was there before each event"),
  flag("progress-notify", "print the server's progress notices"),
];

const clusterFlag = flag("cluster", "all members that the cluster lists, instead of --endpoints");

const grantFlags: readonly FlagSpec[] = [
  flag("prefix", "all keys that begin with KEY"),
  flag("from-key", "all keys from KEY on, in byte order"),
];

const loadFlags = (prefix: string): readonly FlagSpec[] => [
  text("load", "s", "s(small), m(medium), l(large) or xl(xLarge)"),
  text("prefix", prefix, "put the check's keys under this prefix"),
  flag("auto-compact", "compact away the check's revisions afterwards"),
  flag("auto-defrag", "defragment the endpoints afterwards"),
];

const interactiveFlag: FlagSpec = {
  name: "interactive",
  type: "bool",
  default: "true",
  usage: "false: the password is the first word of standard input",
};

const commands: readonly CommandSpec[] = [
  leaf(
    "get",
    "[options] <key> [range_end]",
    "Prints a key, or a range of keys",
    async () => (await import("../commands/get.ts")).runGet,
    {
      examples: ["etcdctl get foo", "etcdctl get --prefix /config/ --keys-only", "etcdctl get foo --rev=4 -w json"],
      flags: getFlags,
    },
  ),
  leaf(
    "put",
    "[options] <key> <value> (<value> can also be given from stdin)",
    "Stores a key",
    async () => (await import("../commands/put.ts")).runPut,
    {
      examples: [
        "etcdctl put foo bar",
        "etcdctl put foo < file",
        "etcdctl put foo -- -7",
        "etcdctl put foo bar --lease=694d81417ca7d303",
      ],
      long: [
        "A value that begins with '-' needs '--' before it, or it is taken for a flag.",
        "Without a value (and without --ignore-value) all of standard input is stored.",
      ],
      flags: putFlags,
    },
  ),
  leaf(
    "del",
    "[options] <key> [range_end]",
    "Deletes a key, or the keys from KEY up to, not including, RANGE_END",
    async () => (await import("../commands/del.ts")).runDel,
    {
      examples: ["etcdctl del foo", "etcdctl del --prefix /tmp/", "etcdctl del a c --range --prev-kv"],
      flags: delFlags,
    },
  ),
  leaf(
    "txn",
    "[options]",
    "Compares, then does one list of requests or the other, all at once",
    async () => (await import("../commands/txn.ts")).runTxn,
    {
      examples: ["etcdctl txn -i", `printf 'value("foo") = "bar"\\n\\nput foo baz\\n\\nget foo\\n\\n' | etcdctl txn`],
      long: [
        "Reads compares, an empty line, requests for success, an empty line, requests for failure, an empty line.",
        'A compare is TARGET("KEY") OP "VALUE"; TARGET value, version, create, mod or lease; OP = != < or >.',
        "A request is a get, put or del as on the command line.",
      ],
      flags: [{ name: "interactive", short: "i", type: "bool", usage: "say which part is read next" }],
    },
  ),
  leaf(
    "compaction",
    "[options] <revision>",
    "Drops the history before a revision",
    async () => (await import("../commands/compaction.ts")).runCompaction,
    {
      examples: ["etcdctl compaction 1234", "etcdctl compaction --physical 1234"],
      flags: [flag("physical", "wait until the old revisions are really gone")],
    },
  ),
  {
    name: "alarm",
    usage: "<subcommand>",
    short: "Alarms that members raised",
    examples: ["etcdctl alarm list", "etcdctl alarm disarm"],
    subcommands: [
      leaf("disarm", "", "Clears all alarms", async () => (await import("../commands/alarm.ts")).runAlarmDisarm, {
        examples: ["etcdctl alarm disarm"],
      }),
      leaf("list", "", "Lists all alarms", async () => (await import("../commands/alarm.ts")).runAlarmList, {
        examples: ["etcdctl alarm list"],
      }),
    ],
  },
  leaf(
    "defrag",
    "",
    "Gives the free space inside the members' files back",
    async () => (await import("../commands/defrag.ts")).runDefrag,
    {
      examples: ["etcdctl defrag", "etcdctl defrag --cluster"],
      flags: [clusterFlag, text("data-dir", "", "a data directory that no server uses, instead of running members")],
    },
  ),
  {
    name: "endpoint",
    usage: "<subcommand>",
    short: "What single endpoints say of themselves",
    examples: ["etcdctl endpoint health --cluster", "etcdctl endpoint status -w table"],
    persistentFlags: [clusterFlag],
    subcommands: [
      leaf(
        "health",
        "",
        "Commits something through each endpoint and says how long it took",
        async () => (await import("../commands/endpoint.ts")).runEndpointHealth,
        {
          examples: ["etcdctl endpoint health", "etcdctl endpoint health --cluster -w table"],
        },
      ),
      leaf(
        "status",
        "",
        "Version, size, leader and indexes of each endpoint",
        async () => (await import("../commands/endpoint.ts")).runEndpointStatus,
        {
          examples: ["etcdctl endpoint status --cluster -w table"],
          long: [
            "The simple format prints endpoint, member id, version, size, is leader, is learner, raft term, raft index,",
            "raft applied index and errors, separated by commas.",
          ],
        },
      ),
      leaf(
        "hashkv",
        "",
        "The hash of each endpoint's key history",
        async () => (await import("../commands/endpoint.ts")).runEndpointHashKv,
        {
          examples: ["etcdctl endpoint hashkv --cluster"],
          flags: [{ name: "rev", type: "int64", usage: "hash up to this revision; 0 is the newest" }],
        },
      ),
    ],
  },
  leaf(
    "move-leader",
    "<transferee-member-id>",
    "Hands leadership to another member",
    async () => (await import("../commands/move-leader.ts")).runMoveLeader,
    {
      examples: ["etcdctl move-leader c89feb932daef420 --endpoints=10.0.0.1:2379,10.0.0.2:2379"],
    },
  ),
  leaf(
    "watch",
    "[options] [key or prefix] [range_end] [--] [exec-command arg1 arg2 ...]",
    "Prints changes as they happen",
    async () => (await import("../commands/watch.ts")).runWatch,
    {
      examples: [
        "etcdctl watch foo",
        "etcdctl watch --prefix /config/ --rev=5",
        "etcdctl watch foo -- sh -c 'echo $ETCD_WATCH_VALUE'",
        "etcdctl watch -i",
      ],
      flags: watchFlags,
    },
  ),
  leaf("version", "", "Prints the version", async () => (await import("../commands/version.ts")).runVersion, {
    examples: ["etcdctl version"],
  }),
  {
    name: "lease",
    usage: "<subcommand>",
    short: "Leases: keys that go when nobody keeps them alive",
    examples: ["etcdctl lease grant 60", "etcdctl put foo bar --lease=694d81417ca7d303"],
    subcommands: [
      leaf("grant", "<ttl>", "Creates a lease", async () => (await import("../commands/lease.ts")).runLeaseGrant, {
        examples: ["etcdctl lease grant 60"],
      }),
      leaf(
        "revoke",
        "<leaseID>",
        "Ends a lease and deletes its keys",
        async () => (await import("../commands/lease.ts")).runLeaseRevoke,
        {
          examples: ["etcdctl lease revoke 694d81417ca7d303"],
        },
      ),
      leaf(
        "timetolive",
        "<leaseID> [options]",
        "Says how long a lease still lives",
        async () => (await import("../commands/lease.ts")).runLeaseTimeToLive,
        {
          examples: ["etcdctl lease timetolive 694d81417ca7d303 --keys"],
          flags: [flag("keys", "also the keys attached to it")],
        },
      ),
      leaf("list", "", "Lists all leases", async () => (await import("../commands/lease.ts")).runLeaseList, {
        examples: ["etcdctl lease list"],
      }),
      leaf(
        "keep-alive",
        "[options] <leaseID>",
        "Renews a lease again and again",
        async () => (await import("../commands/lease.ts")).runLeaseKeepAlive,
        {
          examples: ["etcdctl lease keep-alive 694d81417ca7d303", "etcdctl lease keep-alive --once 694d81417ca7d303"],
          flags: [flag("once", "renew it once and end")],
        },
      ),
    ],
  },
  {
    name: "member",
    usage: "<subcommand>",
    short: "Members of the cluster",
    examples: ["etcdctl member list -w table", "etcdctl member add four --peer-urls=http://10.0.0.4:2380"],
    subcommands: [
      leaf(
        "add",
        "<memberName> [options]",
        "Adds a member",
        async () => (await import("../commands/member.ts")).runMemberAdd,
        {
          examples: [
            "etcdctl member add four --peer-urls=http://10.0.0.4:2380",
            "etcdctl member add four --learner --peer-urls=http://10.0.0.4:2380",
          ],
          flags: [
            text("peer-urls", "", "where the new member will hear its peers, comma separated"),
            flag("learner", "as a learner: it gets the log but has no vote"),
          ],
        },
      ),
      leaf(
        "remove",
        "<memberID>",
        "Removes a member",
        async () => (await import("../commands/member.ts")).runMemberRemove,
        {
          examples: ["etcdctl member remove c89feb932daef420"],
        },
      ),
      leaf(
        "update",
        "<memberID> [options]",
        "Changes a member's peer URLs",
        async () => (await import("../commands/member.ts")).runMemberUpdate,
        {
          examples: ["etcdctl member update c89feb932daef420 --peer-urls=http://10.0.0.4:2380"],
          flags: [text("peer-urls", "", "the new peer URLs, comma separated")],
        },
      ),
      leaf("list", "", "Lists all members", async () => (await import("../commands/member.ts")).runMemberList, {
        examples: ["etcdctl member list", "etcdctl member list -w table"],
        long: [
          "The simple format prints id, status, name, peer URLs, client URLs and is learner, separated by commas.",
        ],
      }),
      leaf(
        "promote",
        "<memberID>",
        "Gives a learner a vote",
        async () => (await import("../commands/member.ts")).runMemberPromote,
        {
          examples: ["etcdctl member promote c89feb932daef420"],
        },
      ),
    ],
  },
  {
    name: "snapshot",
    usage: "<subcommand>",
    short: "Backups of a member's database",
    examples: ["etcdctl snapshot save backup.db"],
    subcommands: [
      leaf(
        "save",
        "<filename>",
        "Downloads a member's database into a file",
        async () => (await import("../commands/snapshot.ts")).runSnapshotSave,
        {
          examples: ["etcdctl snapshot save backup.db"],
        },
      ),
      leaf(
        "restore",
        "<filename> [options]",
        "Makes a data directory from a snapshot (use etcdutl)",
        async () => (await import("../commands/snapshot.ts")).runSnapshotRestore,
        {
          examples: ["etcdutl snapshot restore backup.db --data-dir=default.etcd"],
          flags: [
            text("data-dir", "", "the data directory to make; NAME.etcd when not given"),
            text("wal-dir", "", "a WAL directory of its own"),
            text(
              "initial-cluster",
              "default=http://localhost:2380",
              "the members to start with, name=url, comma separated",
            ),
            text("initial-cluster-token", "etcd-cluster", "what tells this cluster from others"),
            text("initial-advertise-peer-urls", "http://localhost:2380", "this member's peer URLs"),
            text("name", "default", "this member's name"),
            flag("skip-hash-check", "do not check the hash at the end (a file copied from a data directory has none)"),
            { name: "initial-memory-map-size", type: "uint64", usage: "accepted for compatibility" },
            { name: "bump-revision", type: "uint64", usage: "raise the newest revision by this much" },
            flag(
              "mark-compacted",
              "everything up to the raised revision counts as compacted (goes with --bump-revision)",
            ),
          ],
        },
      ),
      leaf(
        "status",
        "<filename>",
        "Hash, revision, keys and size of a snapshot (use etcdutl)",
        async () => (await import("../commands/snapshot.ts")).runSnapshotStatus,
        {
          examples: ["etcdutl snapshot status backup.db -w table"],
          long: ["The simple format prints hash, revision, total keys and total size, separated by commas."],
        },
      ),
    ],
  },
  leaf(
    "make-mirror",
    "[options] <destination>",
    "Copies keys to another cluster and keeps following",
    async () => (await import("../commands/make-mirror.ts")).runMakeMirror,
    {
      examples: [
        "etcdctl make-mirror 10.0.1.1:2379",
        "etcdctl make-mirror --prefix /app/ --dest-prefix /copy/ 10.0.1.1:2379",
      ],
      flags: [
        text("prefix", "", "only keys that begin so"),
        text("dest-prefix", "", "replace the prefix by this one at the destination"),
        flag("no-dest-prefix", "leave the prefix out at the destination"),
        text("dest-cert", "", "client certificate file for the destination"),
        text("dest-key", "", "client key file for the destination"),
        text("dest-cacert", "", "verify the destination's certificate by the CAs in this file"),
        {
          name: "dest-insecure-transport",
          type: "bool",
          default: "true",
          usage: "no TLS to the destination unless a file or https:// asks for it",
        },
        text("dest-user", "", "name[:password] at the destination; without a password it is asked for"),
        text("dest-password", "", "password at the destination; --dest-user is then the whole name"),
      ],
    },
  ),
  leaf(
    "lock",
    "<lockname> [exec-command arg1 arg2 ...]",
    "Holds a named lock, while a command runs or until a signal",
    async () => (await import("../commands/lock.ts")).runLock,
    {
      examples: ["etcdctl lock mylock", "etcdctl lock mylock -- sh -c 'echo $ETCD_LOCK_KEY'"],
      flags: [
        { name: "ttl", type: "int", default: "10", usage: "the lock is lost when we are gone this many seconds" },
      ],
    },
  ),
  leaf(
    "elect",
    "<election-name> [proposal]",
    "Runs for leader of an election, or watches it",
    async () => (await import("../commands/elect.ts")).runElect,
    {
      examples: ["etcdctl elect myelection me", "etcdctl elect --listen myelection"],
      flags: [{ name: "listen", short: "l", type: "bool", usage: "only watch who leads" }],
    },
  ),
  {
    name: "auth",
    usage: "<enable or disable>",
    short: "Turns authentication on and off",
    examples: ["etcdctl user add root", "etcdctl auth enable", "etcdctl --user root auth disable"],
    subcommands: [
      leaf("enable", "", "Turns authentication on", async () => (await import("../commands/auth.ts")).runAuthEnable, {
        examples: ["etcdctl auth enable"],
      }),
      leaf(
        "disable",
        "",
        "Turns authentication off",
        async () => (await import("../commands/auth.ts")).runAuthDisable,
        {
          examples: ["etcdctl --user root auth disable"],
        },
      ),
      leaf(
        "status",
        "",
        "Says whether authentication is on",
        async () => (await import("../commands/auth.ts")).runAuthStatus,
        {
          examples: ["etcdctl auth status"],
        },
      ),
    ],
  },
  {
    name: "user",
    usage: "<subcommand>",
    short: "Users",
    examples: ["etcdctl user add alice", "etcdctl user grant-role alice reader"],
    subcommands: [
      leaf(
        "add",
        "<user name or user:password> [options]",
        "Adds a user",
        async () => (await import("../commands/user.ts")).runUserAdd,
        {
          examples: ["etcdctl user add alice", "etcdctl user add alice --no-password"],
          flags: [
            interactiveFlag,
            text("new-user-password", "", "the new user's password; seen by everyone who lists processes"),
            flag("no-password", "no password: the user comes with a client certificate"),
          ],
        },
      ),
      leaf(
        "get",
        "<user name> [options]",
        "Shows a user",
        async () => (await import("../commands/user.ts")).runUserGet,
        {
          examples: ["etcdctl user get alice --detail"],
          flags: [flag("detail", "also what the user's roles permit")],
        },
      ),
      leaf("list", "", "Lists all users", async () => (await import("../commands/user.ts")).runUserList, {
        examples: ["etcdctl user list"],
      }),
      leaf("delete", "<user name>", "Deletes a user", async () => (await import("../commands/user.ts")).runUserDelete, {
        examples: ["etcdctl user delete alice"],
      }),
      leaf(
        "passwd",
        "<user name> [options]",
        "Changes a user's password",
        async () => (await import("../commands/user.ts")).runUserPasswd,
        {
          examples: ["etcdctl user passwd alice"],
          flags: [interactiveFlag],
        },
      ),
      leaf(
        "grant-role",
        "<user name> <role name>",
        "Gives a user a role",
        async () => (await import("../commands/user.ts")).runUserGrantRole,
        {
          examples: ["etcdctl user grant-role alice reader"],
        },
      ),
      leaf(
        "revoke-role",
        "<user name> <role name>",
        "Takes a role from a user",
        async () => (await import("../commands/user.ts")).runUserRevokeRole,
        {
          examples: ["etcdctl user revoke-role alice reader"],
        },
      ),
    ],
  },
  {
    name: "role",
    usage: "<subcommand>",
    short: "Roles",
    examples: ["etcdctl role add reader", "etcdctl role grant-permission reader read --prefix /config/"],
    subcommands: [
      leaf("add", "<role name>", "Adds a role", async () => (await import("../commands/role.ts")).runRoleAdd, {
        examples: ["etcdctl role add reader"],
      }),
      leaf(
        "get",
        "<role name>",
        "Shows what a role permits",
        async () => (await import("../commands/role.ts")).runRoleGet,
        {
          examples: ["etcdctl role get reader"],
        },
      ),
      leaf("list", "", "Lists all roles", async () => (await import("../commands/role.ts")).runRoleList, {
        examples: ["etcdctl role list"],
      }),
      leaf("delete", "<role name>", "Deletes a role", async () => (await import("../commands/role.ts")).runRoleDelete, {
        examples: ["etcdctl role delete reader"],
      }),
      leaf(
        "grant-permission",
        "[options] <role name> <permission type> <key> [endkey]",
        "Permits a role to read or write keys",
        async () => (await import("../commands/role.ts")).runRoleGrantPermission,
        {
          examples: [
            "etcdctl role grant-permission reader read --prefix /config/",
            "etcdctl role grant-permission owner readwrite a c",
          ],
          flags: grantFlags,
        },
      ),
      leaf(
        "revoke-permission",
        "<role name> <key> [endkey]",
        "Takes a permission from a role",
        async () => (await import("../commands/role.ts")).runRoleRevokePermission,
        {
          examples: ["etcdctl role revoke-permission reader --prefix /config/"],
          flags: grantFlags,
        },
      ),
    ],
  },
  {
    name: "check",
    usage: "<subcommand>",
    short: "Is the cluster quick, and how much memory does data take",
    examples: ["etcdctl check perf", "etcdctl check datascale --load=m"],
    subcommands: [
      leaf(
        "perf",
        "[options]",
        "Writes for a minute and judges the cluster's speed",
        async () => (await import("../commands/check.ts")).runCheckPerf,
        {
          examples: ["etcdctl check perf", "etcdctl check perf --load=l --auto-compact --auto-defrag"],
          flags: loadFlags("/etcdctl-check-perf/"),
        },
      ),
      leaf(
        "datascale",
        "[options]",
        "Writes data and says how much memory the server takes for it",
        async () => (await import("../commands/check.ts")).runCheckDatascale,
        {
          examples: ["etcdctl check datascale --load=s"],
          long: ["The memory is read from the metrics of the first endpoint."],
          flags: loadFlags("/etcdctl-check-datascale/"),
        },
      ),
    ],
  },
];

/** Commands that know the others: they are given the tree when they run. */
const completionShells = ["bash", "zsh", "fish", "powershell"] as const;

export const root: CommandSpec = {
  name: "etcdctl",
  usage: "",
  short: "The command line client of etcd v3",
  examples: ["etcdctl put foo bar", "etcdctl get foo", "etcdctl --endpoints=10.0.0.1:2379 endpoint status -w table"],
  persistentFlags: globalFlags,
  subcommands: [
    ...commands,
    leaf("help", "[command]", "Help for any command", async () => (await import("../commands/help.ts")).runHelp, {
      examples: ["etcdctl help", "etcdctl help lease grant"],
    }),
    {
      name: "completion",
      usage: "",
      short: "Prints a completion script for a shell",
      examples: ["source <(etcdctl completion bash)", "etcdctl completion zsh > ~/.zfunc/_etcdctl"],
      subcommands: completionShells.map((shell) =>
        leaf(
          shell,
          "",
          `Prints the completion script for ${shell}`,
          async () => (await import("../commands/completion.ts")).runCompletion(shell),
          {
            examples: [completionExample(shell)],
            flags: [flag("no-descriptions", "names only")],
          },
        ),
      ),
    },
  ],
};

function completionExample(shell: (typeof completionShells)[number]): string {
  switch (shell) {
    case "bash":
      return "source <(etcdctl completion bash)";
    case "zsh":
      return "etcdctl completion zsh > ~/.zfunc/_etcdctl";
    case "fish":
      return "etcdctl completion fish | source";
    case "powershell":
      return "etcdctl completion powershell | Out-String | Invoke-Expression";
  }
}
