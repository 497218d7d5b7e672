import { createHash } from "node:crypto";
import { existsSync, globSync, readFileSync } from "node:fs";
import { cp, mkdir, mkdtemp, rename, rm, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { bootstrapDebian } from "@forkd/host/image/debian.ts";
import { makeExt4 } from "@forkd/host/image/ext4.ts";
import { repoRoot } from "./baked.ts";
import { missing } from "./capabilities.ts";

/** A Debian with systemd and what forkd needs to run, for a VM of its own. Never written. */
export interface SystemImage {
  readonly disk: string;
  readonly kernel: string;
  readonly initrd: string;
}

const suite = "bookworm";
const packages = [
  ...["systemd-sysv", "udev", "dbus", "kmod", "linux-image-cloud-amd64"],
  ...["qemu-system-x86", "python3", "iproute2", "procps", "e2fsprogs", "util-linux"],
  ...["logrotate", "curl", "nftables", "ca-certificates", "zstd"],
];
/** Room for what a test copies in; unused blocks are holes. */
const diskMib = 4096;
/** For what a test installs. */
const spareInodes = 50_000;
const buildTimeoutMs = 10 * 60_000;
/** Change it when what this file does with the tree changes. */
const recipe = "2";

/** What starts by itself in Debian and only costs an emulated boot time. */
const masked = [
  ...["apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "fstrim.timer"],
  ...["e2scrub_all.timer", "e2scrub_reap.service", "systemd-timesyncd.service"],
  ...["getty@tty1.service", "serial-getty@ttyS0.service", "systemd-pstore.service"],
];

const agentUnit = `[Unit]
Description=Commands of the tests
[Service]
ExecStart=/usr/bin/python3 /usr/local/lib/system-agent.py
Restart=always
RestartSec=1
KillMode=process
Environment=HOME=/root
[Install]
WantedBy=multi-user.target
`;

const cacheDir = join(repoRoot, ".cache/system");
const agent = join(import.meta.dirname, "system-agent.py");

/** False when the image is there or can be built here, else what that needs. */
export function skipWithoutSystemImage(): string | false {
  const qemu = missing({ root: true, programs: ["qemu-system-x86_64", "mkfs.ext4"] });
  if (qemu !== false || existsSync(imageDir())) return qemu;
  return missing({ programs: ["mmdebstrap"], network: true });
}

/** Its name is a hash of what it is made of. */
function imageDir(): string {
  const hash = createHash("sha256")
    .update([recipe, suite, diskMib, agentUnit, ...packages, ...masked].join("\0"))
    .update(readFileSync(agent));
  return join(cacheDir, hash.digest("hex").slice(0, 12));
}

/** Built once a checkout, in about two minutes. Throws with the tool's words when it cannot be. */
export async function ensureSystemImage(): Promise<SystemImage> {
  const dir = imageDir();
  if (!existsSync(dir)) await build(dir);
  return {
    disk: join(dir, "disk.img"),
    kernel: join(dir, "vmlinuz"),
    initrd: join(dir, "initrd"),
  };
}

/** Who builds at the same time as another one wastes time, and neither sees half an image. */
async function build(dir: string): Promise<void> {
  await mkdir(cacheDir, { recursive: true });
  const staging = await mkdtemp(join(cacheDir, ".building-"));
  const treeDir = join(staging, "tree");
  const signal = AbortSignal.timeout(buildTimeoutMs);
  try {
    const progress = (): void => undefined;
    await bootstrapDebian({ suite, packages, treeDir, tmpDir: staging, progress, signal });
    await prepare(treeDir);
    await mkdir(join(staging, "out"));
    await cp(bootFile(treeDir, "vmlinuz"), join(staging, "out/vmlinuz"));
    await cp(bootFile(treeDir, "initrd.img"), join(staging, "out/initrd"));
    await makeExt4({
      treeDir,
      path: join(staging, "out/disk.img"),
      sizeMib: diskMib,
      spareInodes,
      signal,
    });
    await rename(join(staging, "out"), dir).catch((error: unknown) => {
      if (!existsSync(dir)) throw error;
    });
  } finally {
    await rm(staging, { recursive: true, force: true });
  }
}

function bootFile(treeDir: string, name: string): string {
  const [found] = globSync(join(treeDir, `boot/${name}-*`));
  if (found === undefined) throw new Error(`the kernel's package has no ${name}`);
  return found;
}

/** No passwords, no console log-in: the agent is the only way in. */
async function prepare(treeDir: string): Promise<void> {
  const units = join(treeDir, "etc/systemd/system");
  for (const unit of masked) {
    await rm(join(units, unit), { force: true });
    await symlink("/dev/null", join(units, unit));
  }
  await writeFile(join(units, "system-agent.service"), agentUnit);
  const wants = join(units, "multi-user.target.wants");
  await mkdir(wants, { recursive: true });
  await symlink("/etc/systemd/system/system-agent.service", join(wants, "system-agent.service"));
  await rm(join(units, "default.target"), { force: true });
  await symlink("/lib/systemd/system/multi-user.target", join(units, "default.target"));
  await cp(agent, join(treeDir, "usr/local/lib/system-agent.py"));
  await writeFile(join(treeDir, "etc/hostname"), "forkd-host\n");
  await writeFile(join(treeDir, "etc/fstab"), "/dev/vdb /files ext4 ro 0 0\n");
  await writeFile(join(treeDir, "etc/machine-id"), "uninitialized\n");
  await mkdir(join(treeDir, "files"));
}
