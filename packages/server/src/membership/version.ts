/** Versions as the cluster agrees on them: `major.minor.patch`, compared by number. */

export interface Version {
  readonly major: number;
  readonly minor: number;
  readonly patch: number;
}

/** Undefined unless the text is three numbers, with at most a pre-release or build part behind them. */
export function parseVersion(text: string): Version | undefined {
  const match = /^(\d{1,9})\.(\d{1,9})\.(\d{1,9})(?:[-+][0-9A-Za-z.+-]*)?$/.exec(text);
  return match ? { major: Number(match[1]), minor: Number(match[2]), patch: Number(match[3]) } : undefined;
}

export function compareVersions(a: Version, b: Version): number {
  return a.major - b.major || a.minor - b.minor || a.patch - b.patch;
}

/** What the cluster is held to: the minor release. `3.5.16` becomes `3.5.0`. */
export function toClusterVersion(version: Version): Version {
  return { major: version.major, minor: version.minor, patch: 0 };
}

export function formatVersion(version: Version): string {
  return `${version.major}.${version.minor}.${version.patch}`;
}

/** `3.5`, as log lines name a cluster version. */
export function shortVersion(version: Version): string {
  return `${version.major}.${version.minor}`;
}

/** The only target that a cluster of this version may be downgraded to: one minor release less. */
export function allowedDowngradeVersion(version: Version): Version {
  return { major: version.major, minor: version.minor - 1, patch: 0 };
}

/** A cluster version may rise within a major release, and fall by exactly one minor release. */
export function isValidVersionChange(from: Version, to: Version): boolean {
  const [a, b] = [toClusterVersion(from), toClusterVersion(to)];
  return compareVersions(b, allowedDowngradeVersion(a)) === 0 || (a.major === b.major && compareVersions(a, b) < 0);
}
