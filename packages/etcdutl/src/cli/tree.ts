/** All commands of etcdutl. */
import type { CommandSpec } from "./command.ts";
import type { FlagSpec } from "./flags.ts";

export const helpFlag = (name: string): FlagSpec => ({
  name: "help",
  short: "h",
  type: "bool",
  default: "false",
  usage: `help for ${name}`,
});

export const globalFlags: readonly FlagSpec[] = [
  {
    name: "write-out",
    short: "w",
    type: "string",
    default: "simple",
    usage: "set the output format (fields, json, protobuf, simple, table)",
  },
];

const text = (name: string, usage: string, preset = ""): FlagSpec => ({ name, type: "string", default: preset, usage });
const needed = (name: string, usage: string): FlagSpec => ({ ...text(name, usage), isRequired: true });
const flag = (name: string, usage: string, preset = "false"): FlagSpec => ({
  name,
  type: "bool",
  default: preset,
  usage,
});
const count = (name: string, usage: string, preset = "0"): FlagSpec => ({ name, type: "uint", default: preset, usage });

const backend: FlagSpec = {
  ...text("backend", "Kind of database to write: lmdb for this server, bbolt for the Go one", ""),
  own: true,
};

const dryRun: FlagSpec = { ...flag("dry-run", "Only say what would be done"), own: true };

const shells = ["bash", "fish", "powershell", "zsh"] as const;

export const root: CommandSpec = {
  name: "etcdutl",
  short: "An administrative command line tool for etcd3.",
  subcommands: [
    {
      name: "backup",
      short: "[legacy] offline backup of etcd directory",
      flags: [
        needed("backup-dir", "Path to the backup dir"),
        text("backup-wal-dir", "Path to the backup wal dir"),
        needed("data-dir", "Path to the etcd data dir"),
        text("wal-dir", "Path to the etcd wal dir"),
        flag("with-v3", "Backup v3 backend data", "true"),
        backend,
      ],
      load: async () => (await import("../commands/backup.ts")).runBackup,
    },
    {
      name: "completion",
      short: "Generate the autocompletion script for the specified shell",
      subcommands: shells.map((shell) => ({
        name: shell,
        short: `Generate the autocompletion script for ${shell}`,
        flags: [flag("no-descriptions", "disable completion descriptions")],
        load: async () => (await import("../commands/completion.ts")).runCompletion,
      })),
    },
    {
      name: "defrag",
      short: "Defragments the storage of the etcd",
      flags: [needed("data-dir", "Required. Defragments a data directory not in use by etcd."), dryRun],
      load: async () => (await import("../commands/defrag.ts")).runDefrag,
    },
    {
      name: "hashkv",
      usage: "<filename>",
      short: "Prints the KV history hash of a given file",
      flags: [count("rev", "maximum revision to hash (default: latest revision)")],
      own: true,
      load: async () => (await import("../commands/hash-kv.ts")).runHashKv,
    },
    {
      name: "help",
      usage: "[command]",
      short: "Help about any command",
      load: async () => (await import("../commands/help.ts")).runHelp,
    },
    {
      name: "migrate",
      short: "Migrates a stopped member to another version of etcd, or to another kind of database",
      flags: [
        needed("data-dir", "Path to the etcd data dir"),
        flag("force", "Ignore migration failure and forcefully override storage version. Not recommended."),
        text(
          "target-version",
          'Target etcd version to migrate contents of data dir. Minimal value 3.5. Format "X.Y" for example 3.6.',
        ),
        text("to", "Kind of database to change to: lmdb for this server, bbolt for the Go one"),
        text("wal-dir", "Path to the WAL directory (use --data-dir if none given)"),
        { ...dryRun, own: undefined },
      ],
      own: true,
      load: async () => (await import("../commands/migrate.ts")).runMigrate,
    },
    {
      name: "snapshot",
      short: "Manages etcd node snapshots",
      subcommands: [
        {
          name: "restore",
          usage: "<filename> --data-dir {output dir} [options]",
          short: "Restores an etcd member snapshot to an etcd directory",
          flags: [
            count("bump-revision", "How much to increase the latest revision after restore"),
            needed("data-dir", "Path to the output data directory"),
            text(
              "initial-advertise-peer-urls",
              "List of this member's peer URLs to advertise to the rest of the cluster",
              "http://localhost:2380",
            ),
            text(
              "initial-cluster",
              "Initial cluster configuration for restore bootstrap",
              "default=http://localhost:2380",
            ),
            text(
              "initial-cluster-token",
              "Initial cluster token for the etcd cluster during restore bootstrap",
              "etcd-cluster",
            ),
            count(
              "initial-memory-map-size",
              "Initial memory map size of the database in bytes. It uses the default value if not defined or defined to 0",
              "10737418240",
            ),
            flag(
              "mark-compacted",
              "Mark the latest revision after restore as the point of scheduled compaction (required if --bump-revision > 0, disallowed otherwise)",
            ),
            text("name", "Human-readable name for this member", "default"),
            flag("skip-hash-check", "Ignore snapshot integrity hash value (required if copied from data directory)"),
            text("wal-dir", "Path to the WAL directory (use --data-dir if none given)"),
            backend,
            dryRun,
          ],
          load: async () => (await import("../commands/restore.ts")).runRestore,
        },
        {
          name: "save",
          usage: "<filename>",
          short: "Stores an etcd node backend snapshot to a given file",
          deprecated: "Use `etcdctl snapshot save` to download snapshot",
          flags: [{ ...text("data-dir", "Path to the data directory of a stopped member"), own: true }],
          load: async () => (await import("../commands/save.ts")).runSave,
        },
        {
          name: "status",
          usage: "<filename>",
          short: "Gets backend snapshot status of a given file",
          load: async () => (await import("../commands/status.ts")).runStatus,
        },
      ],
    },
    {
      name: "verify",
      short: "Checks everything a stopped member has on its disk",
      flags: [
        needed("data-dir", "Path to the etcd data dir"),
        text("wal-dir", "Path to the WAL directory (use --data-dir if none given)"),
      ],
      own: true,
      load: async () => (await import("../commands/verify.ts")).runVerify,
    },
    {
      name: "version",
      short: "Prints the version of etcdutl",
      load: async () => (await import("../commands/version.ts")).runVersion,
    },
  ],
};
