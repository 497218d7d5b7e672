import { readFile } from "node:fs/promises";
import type { HostFacts } from "@forkd/api";
import type { DataPaths } from "../config/data-paths.ts";
import type { EngineSettings } from "../config/engine-settings.ts";
import { isErrno } from "../lib/atomic.ts";
import { type RunResult, run } from "../lib/exec.ts";
import { findOnPath } from "../lib/programs.ts";
import { netnsDir } from "../linux/net/plan.ts";
import { poolDir } from "../linux/net/pool.ts";

/** Where the kernel and the system show themselves; tests have roots of their own. */
export interface HostRoots {
  readonly proc: string;
  readonly sys: string;
  readonly dev: string;
  /** Where ip(8) keeps network namespaces by name. */
  readonly netns: string;
  /** Where forkd keeps which of them are free. */
  readonly netnsPool: string;
  /** The operator's files: the token, the certificates. */
  readonly etc: string;
  /** Variables of the daemon's unit; it need not be there. */
  readonly settings: string;
}

export const hostRoots: HostRoots = {
  proc: "/proc",
  sys: "/sys",
  dev: "/dev",
  netns: netnsDir,
  netnsPool: poolDir,
  etc: "/etc/forkd",
  settings: "/etc/default/forkd",
};

/** What became of asking the daemon. */
export type DaemonAnswer =
  | { readonly kind: "up"; readonly facts: HostFacts }
  /** It answers, but not as this version of it does. */
  | { readonly kind: "other"; readonly version: string }
  | { readonly kind: "refused" | "absent" | "broken"; readonly reason: string };

/** What checks may look at. */
export interface DoctorScope {
  readonly paths: DataPaths;
  readonly roots: HostRoots;
  readonly engines: EngineSettings;
  /** PATH of whoever asks. */
  readonly path: string;
  /** This program's version. */
  readonly version: string;
  readonly auditLogPath: string;
  readonly tokenFile: string;
  /** As the asker's variables say; undefined when they do not, and the unit's are asked. */
  readonly tlsCertFile: string | undefined;
  readonly daemonUrl: string;
  /** Asked once, however many checks want to know. */
  readonly askDaemon: () => Promise<DaemonAnswer>;
}

/** Milliseconds that a program asked by a check may take. */
const toolTimeoutMs = 4_000;

/** A file of the kernel's as text, trimmed; undefined when it is not there or not ours to read. */
export async function readText(path: string): Promise<string | undefined> {
  try {
    return (await readFile(path, "utf8")).trim();
  } catch (error) {
    const expected = ["ENOENT", "EACCES", "EPERM", "ENOTDIR", "EINVAL", "EIO"];
    if (expected.some((name) => isErrno(error, name))) return undefined;
    throw error;
  }
}

/** A file that holds one number; undefined when it does not. */
export async function readNumber(path: string): Promise<number | undefined> {
  const text = await readText(path);
  return text !== undefined && /^-?\d+$/.test(text) ? Number(text) : undefined;
}

/** Runs a program of the asker's PATH; undefined when it has none of that name. Throws tool_failed. */
export async function ask(
  { path }: DoctorScope,
  argv: readonly string[],
): Promise<RunResult | undefined> {
  const [name = "", ...args] = argv;
  const program = await findOnPath(name, path);
  if (program === undefined) return undefined;
  return await run([program, ...args], { timeoutMs: toolTimeoutMs, env: { PATH: path } });
}
