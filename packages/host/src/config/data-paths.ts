import { createHash } from "node:crypto";
import { isAbsolute, join, resolve } from "node:path";

/** Where everything of one forkd installation lives; all paths are absolute. */
export interface DataPaths {
  readonly dataDir: string;
  readonly snapshotsDir: string;
  readonly rootfsDir: string;
  readonly kernelsDir: string;
  /** One directory a live sandbox; same file system as the snapshots. */
  readonly workDir: string;
  readonly cacheDir: string;
  /** Sockets and locks; emptied by a reboot when it is under /run. */
  readonly runDir: string;
  /** Images of chains that are shared in memory; a tmpfs, which a reboot empties. */
  readonly hotDir: string;
}

export type Env = Readonly<Record<string, string | undefined>>;

/**
 * `FORKD_DATA_DIR` moves everything (sockets too); else root has /var/lib/forkd and /run/forkd,
 * and another user has the XDG directories, /tmp when there is no home.
 */
export function resolveDataPaths(env: Env, uid: number): DataPaths {
  const moved = env["FORKD_DATA_DIR"];
  if (moved !== undefined && moved !== "")
    return pathsUnder({ dataDir: resolve(moved), runDir: join(resolve(moved), "run"), uid });
  if (uid === 0) return pathsUnder({ dataDir: "/var/lib/forkd", runDir: "/run/forkd", uid });
  const dataHome = absolute(env["XDG_DATA_HOME"]) ?? join(env["HOME"] ?? "/tmp", ".local/share");
  const dataDir = join(dataHome, "forkd");
  const runtimeDir = absolute(env["XDG_RUNTIME_DIR"]);
  const runDir = runtimeDir === undefined ? join(dataDir, "run") : join(runtimeDir, "forkd");
  return pathsUnder({ dataDir, runDir, uid });
}

function absolute(path: string | undefined): string | undefined {
  return path !== undefined && isAbsolute(path) ? path : undefined;
}

interface Roots {
  readonly dataDir: string;
  readonly runDir: string;
  readonly uid: number;
}

function pathsUnder({ dataDir, runDir, uid }: Roots): DataPaths {
  const user = uid === 0 ? "forkd" : `forkd-${uid}`;
  const name = createHash("sha256").update(dataDir).digest("hex").slice(0, 16);
  return {
    dataDir,
    snapshotsDir: join(dataDir, "snapshots"),
    rootfsDir: join(dataDir, "rootfs"),
    kernelsDir: join(dataDir, "kernels"),
    workDir: join(dataDir, "work"),
    cacheDir: join(dataDir, "cache"),
    runDir,
    hotDir: join("/dev/shm", user, name),
  };
}

/** Where what is done with a data directory is audited, unless somebody says otherwise. */
export function auditLogDefault(dataDir: string): string {
  return dataDir === "/var/lib/forkd" ? "/var/log/forkd/audit.log" : join(dataDir, "audit.log");
}
