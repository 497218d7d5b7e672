import { basename, join } from "node:path";
import { ForkdError } from "@forkd/api";
import type { JailUser } from "./files.ts";

/** Whom locked-in VMMs run as; docs/firecracker.md. */
export interface JailPolicy {
  /** Each VM gets a user of its own, from `uidFirst` on. */
  readonly uidFirst: number;
  readonly uidCount: number;
  /** The group of all of them, which may read what they share. */
  readonly gid: number;
}

export interface JailSettings extends JailPolicy {
  /** The jailer of the same release as the VMM. */
  readonly jailer: string;
}

export const jailDefaults: JailPolicy = { uidFirst: 820_000, uidCount: 10_000, gid: 820_000 };

/** A VM has one directory, so one name in it will do. */
const jailId = "vm";
/**
 * The launcher has put the VMM into its control groups before the jailer runs. The jailer moves it
 * to its own if that exists, by default `/firecracker`, out of its limits: so it is told of one
 * that cannot be there.
 */
const noCgroup = "forkd/none/such";
/** RAM file, disks, sockets, KVM, connections of the agent: some dozens. */
const openFilesMax = 1024;
/** Above the RAM and the disk: what else a VMM writes is small. */
const fileSlackBytes = 64 * 1024 * 1024;

/** The jail's root, relative to the work directory. The jailer's own layout. */
export function jailDir(binary: string): string {
  return join("jail", basename(binary), jailId, "root");
}

export interface JailOrder {
  readonly settings: JailSettings;
  readonly binary: string;
  readonly workDir: string;
  readonly user: JailUser;
  /** The RAM or the disk, whichever is larger. */
  readonly largestFileBytes: number;
}

/**
 * The command line of the jailer; the VMM's own arguments follow. Seccomp stays as it is: on. The
 * launcher has entered the network before, since it gives the tap to the user too.
 */
export function jailerArgv(order: JailOrder): string[] {
  const { settings, binary, workDir, user, largestFileBytes } = order;
  const fileBytesMax = largestFileBytes + fileSlackBytes;
  return [
    settings.jailer,
    ...["--id", jailId, "--exec-file", binary],
    ...["--uid", String(user.uid), "--gid", String(user.gid)],
    ...["--chroot-base-dir", join(workDir, "jail")],
    ...["--cgroup-version", "2"],
    ...["--parent-cgroup", noCgroup],
    ...["--resource-limit", `no-file=${openFilesMax}`],
    ...["--resource-limit", `fsize=${fileBytesMax}`],
    "--",
  ];
}

/** Users that no two live VMs share. */
export class JailUsers {
  readonly #settings: JailPolicy;
  readonly #taken = new Set<number>();

  constructor(settings: JailPolicy) {
    this.#settings = settings;
  }

  /** Throws busy when all are taken. */
  take(): JailUser {
    const { uidFirst, uidCount, gid } = this.#settings;
    for (let uid = uidFirst; uid < uidFirst + uidCount; uid += 1) {
      if (this.#taken.has(uid)) continue;
      this.#taken.add(uid);
      return { uid, gid };
    }
    throw new ForkdError("busy", `all ${uidCount} users for jails are in use`);
  }

  /** Marks the user of a VM that runs already. */
  keep(user: JailUser): void {
    this.#taken.add(user.uid);
  }

  release(user: JailUser): void {
    this.#taken.delete(user.uid);
  }
}
