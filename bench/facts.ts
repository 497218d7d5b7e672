import { readFileSync, statfsSync } from "node:fs";
import { arch, cpus, release, totalmem } from "node:os";
import { run } from "@forkd/host/lib/exec.ts";

/** What a number means nothing without. */
export interface HostFacts {
  readonly cpu: string;
  readonly cores: number;
  readonly memory_mib: number;
  readonly arch: string;
  readonly kernel: string;
  readonly os: string;
  readonly node: string;
  readonly qemu: string;
  readonly crun: string;
  readonly data_dir_fs: string;
  readonly commit: string;
  readonly at: string;
}

/** File system magic numbers of statfs(2). */
const fileSystems: Readonly<Record<number, string>> = {
  61267: "ext4",
  2435016766: "btrfs",
  1481003842: "xfs",
  16914836: "tmpfs",
  2035054128: "overlayfs",
};

async function firstLine(argv: readonly string[]): Promise<string> {
  try {
    const { stdout } = await run(argv, { timeoutMs: 10_000 });
    return stdout.split("\n")[0]?.trim() ?? "unknown";
  } catch {
    return "not installed";
  }
}

function osName(): string {
  const text = readFileSync("/etc/os-release", "utf8");
  return /^PRETTY_NAME="?([^"\n]*)/m.exec(text)?.[1] ?? "unknown";
}

function fileSystemOf(dir: string): string {
  const { type } = statfsSync(dir);
  return fileSystems[type] ?? `0x${type.toString(16)}`;
}

export async function hostFacts(dataDir: string): Promise<HostFacts> {
  const [qemu, crun, commit] = await Promise.all([
    firstLine(["qemu-system-x86_64", "--version"]),
    firstLine(["crun", "--version"]),
    firstLine(["git", "-C", import.meta.dirname, "describe", "--always", "--dirty"]),
  ]);
  return {
    cpu: cpus()[0]?.model ?? "unknown",
    cores: cpus().length,
    memory_mib: Math.round(totalmem() / 1024 / 1024),
    arch: arch(),
    kernel: release(),
    os: osName(),
    node: process.version,
    qemu,
    crun,
    data_dir_fs: fileSystemOf(dataDir),
    commit,
    at: new Date().toISOString(),
  };
}
