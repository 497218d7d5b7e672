import { ForkdError } from "@forkd/api";

/** A release of Firecracker; builds between releases carry words behind it, which are dropped. */
export interface FirecrackerVersion {
  readonly major: number;
  readonly minor: number;
  readonly patch: number;
}

/** What a release's API has; each from its changelog. */
export interface FirecrackerCapabilities {
  /** `network_overrides` of PUT /snapshot/load, 1.12. */
  readonly networkOverrides: boolean;
  /** `track_dirty_pages` of PUT /snapshot/load, 1.13; `enable_diff_snapshots` before. */
  readonly trackDirtyPages: boolean;
  /** `vsock_override` of PUT /snapshot/load, 1.16. */
  readonly vsockOverride: boolean;
}

/** Something that a release does wrong and forkd would run into. */
export interface KnownFault {
  readonly what: "vsock-after-restore" | "diff-over-3gib";
  /** A sentence for people. */
  readonly reason: string;
}

const oldest: FirecrackerVersion = { major: 1, minor: 10, patch: 0 };
const versionPattern = /\bv?(\d{1,4})\.(\d{1,4})\.(\d{1,4})/;

/** Reads `Firecracker v1.16.1` or `1.16.1`. Throws engine_unavailable for anything else. */
export function parseVersion(text: string): FirecrackerVersion {
  const [, major, minor, patch] = versionPattern.exec(text) ?? [];
  if (major !== undefined) {
    return { major: Number(major), minor: Number(minor), patch: Number(patch) };
  }
  const said = JSON.stringify(text.slice(0, 80));
  throw new ForkdError("engine_unavailable", `Firecracker does not say its version, but ${said}`);
}

export function formatVersion({ major, minor, patch }: FirecrackerVersion): string {
  return `${major}.${minor}.${patch}`;
}

function atLeast(version: FirecrackerVersion, [major, minor, patch]: readonly number[]): boolean {
  const steps = [
    version.major - (major ?? 0),
    version.minor - (minor ?? 0),
    version.patch - (patch ?? 0),
  ];
  return (steps.find((step) => step !== 0) ?? 0) >= 0;
}

export function capabilitiesOf(version: FirecrackerVersion): FirecrackerCapabilities {
  return {
    networkOverrides: atLeast(version, [1, 12, 0]),
    trackDirtyPages: atLeast(version, [1, 13, 0]),
    vsockOverride: atLeast(version, [1, 16, 0]),
  };
}

/** Faults of a release that matter to forkd; upstream's pull requests 5705 and 5958. */
export function faultsOf(version: FirecrackerVersion): readonly KnownFault[] {
  const name = `Firecracker ${formatVersion(version)}`;
  const faults: KnownFault[] = [];
  if (!atLeast(version, [1, 16, 1])) {
    const reason = `${name} may lose what a guest sends by vsock after a restore; 1.16.1 mends it`;
    faults.push({ what: "vsock-after-restore", reason });
  }
  if (!atLeast(version, [1, 15, 0])) {
    const reason = `${name} writes wrong diffs of guests over 3 GiB; 1.15.0 mends it`;
    faults.push({ what: "diff-over-3gib", reason });
  }
  return faults;
}

/** Why this release cannot be used at all, or null. */
export function refusalOf(version: FirecrackerVersion): string | null {
  if (!atLeast(version, [oldest.major, oldest.minor, oldest.patch])) {
    return `Firecracker ${formatVersion(version)} is older than ${formatVersion(oldest)}`;
  }
  const fault = faultsOf(version).find(({ what }) => what === "vsock-after-restore");
  return fault?.reason ?? null;
}

/** RAM from here on is in more than one slot, which diffs of old releases get wrong. */
const oneSlotMib = 3072;

/** Throws engine_unavailable when this release would write wrong diffs of a guest of that size. */
export function requireDiffs(version: FirecrackerVersion, memoryMib: number): void {
  const fault = faultsOf(version).find(({ what }) => what === "diff-over-3gib");
  if (fault === undefined || memoryMib <= oneSlotMib) return;
  throw new ForkdError("engine_unavailable", fault.reason, {
    hint: "install a newer one with: forkd firecracker install",
  });
}
