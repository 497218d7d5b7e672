import { accessSync, constants, existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { type Capability, parseCapabilities } from "@forkd/host/linux/privileges.ts";

/** What a test needs of its host. */
export interface Needs {
  readonly root?: boolean;
  /** What this process may do, which a container's root may not. */
  readonly capabilities?: readonly Capability[];
  readonly programs?: readonly string[];
  /** Device files that must open for reading and writing, such as /dev/kvm. */
  readonly devices?: readonly string[];
  /** Files of this checkout that a build makes, relative to its root. */
  readonly built?: readonly string[];
  /** Package archives; FORKD_TEST_OFFLINE=1 says that there are none. */
  readonly network?: boolean;
}

const repoRoot = join(import.meta.dirname, "../..");

/** False when this host can run the test, else what it lacks: for `test(name, { skip })`. */
export function missing(needs: Needs): string | false {
  if (needs.root === true && process.getuid?.() !== 0) return "needs root";
  const held = needs.capabilities === undefined ? new Set() : ownCapabilities();
  const taken = (needs.capabilities ?? []).filter((name) => !held.has(name));
  if (taken.length > 0)
    return `needs ${taken.map((name) => `CAP_${name.toUpperCase()}`).join(", ")}`;
  if (needs.network === true && process.env["FORKD_TEST_OFFLINE"] === "1") {
    return "needs package archives, and FORKD_TEST_OFFLINE is set";
  }
  const absent = (needs.programs ?? []).filter((name) => !hasProgram(name));
  if (absent.length > 0) return `needs ${absent.join(", ")} (apt-get install)`;
  const shut = (needs.devices ?? []).filter((path) => !opens(path));
  if (shut.length > 0) return `needs ${shut.join(", ")}`;
  const unbuilt = (needs.built ?? []).filter((path) => !existsSync(join(repoRoot, path)));
  return unbuilt.length > 0 && `needs ${unbuilt.join(", ")} (npm run native)`;
}

function ownCapabilities(): ReadonlySet<Capability> {
  return parseCapabilities(readFileSync("/proc/self/status", "utf8"));
}

function opens(path: string): boolean {
  try {
    accessSync(path, constants.R_OK | constants.W_OK);
    return true;
  } catch {
    return false;
  }
}

function hasProgram(name: string): boolean {
  const dirs = [...(process.env["PATH"] ?? "").split(":"), "/usr/sbin", "/sbin"];
  return dirs.some((dir) => {
    try {
      accessSync(join(dir, name), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

/** A busybox that runs in a root without libraries; undefined when this host has none. */
export function staticBusybox(): string | undefined {
  return ["/bin/busybox", "/usr/bin/busybox"].find((path) => {
    try {
      // A dynamic program names its loader.
      return !readFileSync(path).includes("/ld-linux");
    } catch {
      return false;
    }
  });
}
