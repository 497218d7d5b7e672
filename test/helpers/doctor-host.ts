import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { chmod, mkdir, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { resolveDataPaths } from "@forkd/host/config/data-paths.ts";
import { engineDefaults } from "@forkd/host/config/engine-settings.ts";
import { type CheckReport, diagnose } from "@forkd/host/doctor/doctor.ts";
import type { DaemonAnswer, DoctorScope } from "@forkd/host/doctor/scope.ts";
import { repoRoot } from "./baked.ts";
import { makeTmpDir } from "./tmp.ts";

/** What a well set up host shows below /proc, /sys and /dev. */
const healthyFiles: Readonly<Record<string, string>> = {
  "proc/version": "Linux version 6.12.0-1-amd64 (builder@host)\n",
  "proc/sys/kernel/osrelease": "6.12.0-1-amd64\n",
  "proc/sys/kernel/pid_max": "4194304\n",
  "proc/sys/kernel/threads-max": "254000\n",
  "proc/sys/vm/overcommit_memory": "0\n",
  "proc/sys/net/ipv4/ip_forward": "1\n",
  "proc/cpuinfo": "processor : 0\nflags\t\t: fpu vmx sse\n",
  "proc/meminfo": "MemAvailable:   8000000 kB\nHugePages_Total:  4\nHugePages_Free:   4\n",
  "proc/self/limits": "Limit   Soft Hard Units\nMax open files  1024  524288  files\n",
  "proc/self/status": "CapBnd:\t000001ffffffffff\n",
  "sys/devices/system/clocksource/clocksource0/current_clocksource": "tsc\n",
  "sys/kernel/mm/ksm/run": "1\n",
  "sys/kernel/mm/ksm/pages_to_scan": "1000\n",
  "sys/class/net/forkd-tap0/flags": "0x1003\n",
  "dev/kvm": "",
  "dev/net/tun": "",
  "dev/vhost-vsock": "",
  "etc/token": "0123456789abcdef0123456789abcdef\n",
  "data/audit.log": "",
};

const quiet = "exit 0";
/** Programs of the host: what they print, or do to its files ($ROOT). Only what a shell itself has. */
const programs: Readonly<Record<string, string>> = {
  "qemu-system-x86_64": 'echo "QEMU emulator version 9.2.0 (Debian)"',
  ...Object.fromEntries(
    ["skopeo", "umoci", "mmdebstrap", "mkfs.ext4", "unshare", "tar", "crun", "nft"].map((name) => [
      name,
      quiet,
    ]),
  ),
  docker: "echo Docker version 28",
  sudo: 'exec "$@"',
  ip: '[ "$1 $2 $4" = "link set up" ] && echo 0x1003 >"$ROOT/sys/class/net/$3/flags"',
  modprobe: `case $1 in
    kvm_intel) exit 1 ;;
    kvm_amd) : >"$ROOT/dev/kvm" ;;
    tun) : >"$ROOT/dev/net/tun" ;;
    *) exit 1 ;;
  esac`,
  sysctl: `for pair in "$@"; do
    case $pair in -w) ;; *)
      name=\${pair%%=*}
      file=$ROOT/proc/sys/$(echo "$name" | /usr/bin/tr . /)
      echo "\${pair#*=}" >"$file" ;;
    esac
  done`,
  "apt-get": `[ "$1 $2" = "install -y" ] || exit 1
  shift 2
  for package in "$@"; do
    case $package in
      qemu-system-x86) name=qemu-system-x86_64 ;;
      nftables) name=nft ;; e2fsprogs) name=mkfs.ext4 ;; iproute2) name=ip ;;
      *) name=$package ;;
    esac
    /bin/cp "$ROOT/archive/$name" "$ROOT/bin/$name"
  done`,
  forkd: `exec ${repoRoot}/bin/forkd "$@"`,
};

/** A host of files, with programs that change them as the real ones change the kernel. */
export interface DoctorHost extends AsyncDisposable {
  readonly root: string;
  readonly scope: DoctorScope;
  write(path: string, text: string, mode?: number): Promise<void>;
  remove(path: string): Promise<void>;
  /** What one check finds. */
  look(name: string, change?: Partial<DoctorScope>): Promise<CheckReport>;
  /** Runs a hint in a shell of this host, as if it was pasted. */
  paste(hint: string): void;
}

export async function makeDoctorHost(): Promise<DoctorHost> {
  const dir = await makeTmpDir("doctor");
  const root = dir.path;
  const write = async (path: string, text: string, mode = 0o600): Promise<void> => {
    await mkdir(join(root, dirname(path)), { recursive: true });
    await writeFile(join(root, path), text);
    await chmod(join(root, path), mode);
  };
  for (const [path, text] of Object.entries(healthyFiles)) await write(path, text);
  for (const [name, script] of Object.entries(programs)) {
    for (const place of ["bin", "archive"]) {
      await write(`${place}/${name}`, `#!/bin/sh\n${script}\n`, 0o755);
    }
  }
  await mkdir(join(root, "netns"));
  const scope = scopeOf(root);
  return {
    root,
    scope,
    write,
    remove: (path) => rm(join(root, path), { recursive: true, force: true }),
    look: (name, change = {}) => lookAt({ ...scope, ...change }, name, false),
    paste: (hint) => paste(root, hint),
    [Symbol.asyncDispose]: () => dir[Symbol.asyncDispose](),
  };
}

/** Lets doctor mend, and tells what it found after that. */
export function mend({ scope }: DoctorHost, name: string): Promise<CheckReport> {
  return lookAt(scope, name, true);
}

/** A daemon that says this. */
export const saying = (answer: DaemonAnswer): Pick<DoctorScope, "askDaemon"> => ({
  askDaemon: async () => answer,
});

function scopeOf(root: string): DoctorScope {
  const at = (path: string): string => join(root, path);
  return {
    // Images in memory of other tests, whose directories are gone, are not this host's.
    paths: { ...resolveDataPaths({ FORKD_DATA_DIR: at("data") }, 0), hotDir: at("shm/forkd/0") },
    roots: {
      proc: at("proc"),
      sys: at("sys"),
      dev: at("dev"),
      netns: at("netns"),
      netnsPool: at("pool"),
      etc: at("etc"),
      settings: at("etc/default"),
    },
    engines: engineDefaults,
    path: at("bin"),
    version: "1.2.3",
    auditLogPath: at("data/audit.log"),
    tokenFile: at("etc/token"),
    tlsCertFile: undefined,
    daemonUrl: "http://127.0.0.1:9",
    ...saying({ kind: "absent", reason: "nobody is there" }),
  };
}

async function lookAt(scope: DoctorScope, name: string, fix: boolean): Promise<CheckReport> {
  const [report, ...others] = await diagnose(scope, { only: [name], fix });
  assert.ok(report !== undefined && others.length === 0);
  return report;
}

function paste(root: string, hint: string): void {
  const env = {
    ROOT: root,
    PATH: `${join(root, "bin")}:/usr/bin:/bin`,
    FORKD_DATA_DIR: `${root}/data`,
  };
  const { status, stderr } = spawnSync("/bin/sh", ["-c", hint], { env, encoding: "utf8" });
  assert.equal(status, 0, `${hint}: ${stderr}`);
}
