import { accessSync, constants, existsSync } from "node:fs";
import { delimiter, join } from "node:path";

/**
 * What a test may need of its host. Each check gives null when the host has it, else the reason,
 * which becomes the reason of the skip: no test is left out in silence.
 */
const checks = {
  root: () => (process.getuid?.() === 0 ? null : "needs root"),
  qemu: () => program("qemu-system-x86_64"),
  /** That the device opens; whether it can run a guest is what the engine's own probe finds out. */
  kvm: () => device("/dev/kvm"),
  tun: () => device("/dev/net/tun"),
  loop: () => device("/dev/loop-control"),
  "docker-registry": () => program("docker-registry"),
  skopeo: () => program("skopeo"),
  umoci: () => program("umoci"),
  mmdebstrap: () => program("mmdebstrap"),
  crun: () => program("crun"),
  python: () => program("python3"),
  "cgroup-v2": () =>
    existsSync("/sys/fs/cgroup/cgroup.controllers") ? null : "no cgroup v2 on /sys/fs/cgroup",
  /** Package archives: a test that needs them may be told to keep off the network. */
  network: () => (process.env["FORKD_TEST_OFFLINE"] === "1" ? "FORKD_TEST_OFFLINE is set" : null),
  "guest-agent": () =>
    existsSync(join(repoRoot, "guest/build/forkd-agent")) ? null : "guest/build is not built",
} as const satisfies Record<string, () => string | null>;

const repoRoot = join(import.meta.dirname, "../..");

export type Capability = keyof typeof checks;

function program(name: string): string | null {
  const found = (process.env["PATH"] ?? "").split(delimiter).some((dir) => {
    try {
      accessSync(join(dir, name), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
  return found ? null : `${name} is not installed`;
}

function device(path: string): string | null {
  try {
    accessSync(path, constants.R_OK | constants.W_OK);
    return null;
  } catch {
    return `${path} is missing or not ours to open`;
  }
}

/** Why the first missing capability is missing; null when all are there. */
export function missing(...capabilities: readonly Capability[]): string | null {
  for (const capability of capabilities) {
    const reason = checks[capability]();
    if (reason !== null) return reason;
  }
  return null;
}

/** For node:test: `test("...", { skip: skipWithout("root", "qemu") }, ...)`. */
export function skipWithout(...capabilities: readonly Capability[]): string | false {
  return missing(...capabilities) ?? false;
}
