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
}

export type Env = Readonly<Record<string, string | undefined>>;

/**
 * `FORKD_DATA_DIR` moves everything (sockets too); else root has /var/lib/forkd and /run/forkd,
 * and another user has the XDG directories, /tmp when there is no home.
 */
export function resolveDataPaths(env: Env, uid: number): DataPaths {
  const moved = env["FORKD_DATA_DIR"];
  if (moved !== undefined && moved !== "")
    return pathsUnder(resolve(moved), join(resolve(moved), "run"));
  if (uid === 0) return pathsUnder("/var/lib/forkd", "/run/forkd");
  const dataHome = absolute(env["XDG_DATA_HOME"]) ?? join(env["HOME"] ?? "/tmp", ".local/share");
  const dataDir = join(dataHome, "forkd");
  const runtimeDir = absolute(env["XDG_RUNTIME_DIR"]);
  return pathsUnder(
    dataDir,
    runtimeDir === undefined ? join(dataDir, "run") : join(runtimeDir, "forkd"),
  );
}

function absolute(path: string | undefined): string | undefined {
  return path !== undefined && isAbsolute(path) ? path : undefined;
}

function pathsUnder(dataDir: string, runDir: string): DataPaths {
  return {
    dataDir,
    snapshotsDir: join(dataDir, "snapshots"),
    rootfsDir: join(dataDir, "rootfs"),
    kernelsDir: join(dataDir, "kernels"),
    workDir: join(dataDir, "work"),
    cacheDir: join(dataDir, "cache"),
    runDir,
  };
}
