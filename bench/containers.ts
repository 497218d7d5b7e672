import { join } from "node:path";
import { toForkdError } from "@forkd/api";
import { run } from "@forkd/host/lib/exec.ts";
import { type Spread, spread } from "./stats.ts";
import { coldArgv } from "./task.ts";

export interface ContainerOrder {
  /** The root image that the forks run from, mounted read-only. */
  readonly rootImage: string;
  readonly env: Readonly<Record<string, string>>;
  readonly count: number;
  readonly concurrency: number;
}

/** One round of cold containers. Times are milliseconds from the start of the round. */
export interface ContainerRound {
  readonly count: number;
  readonly verified: number;
  readonly concurrency: number;
  readonly total_ms: number;
  readonly answer_ms: Spread | null;
  /** Of one container, from its own start. */
  readonly each_ms: Spread | null;
  readonly failures: readonly string[];
}

/** What container-worker.ts prints; both ends are ours. */
export interface WorkerReport {
  readonly totalMs: number;
  readonly children: readonly {
    readonly answerMs: number;
    readonly ownMs: number;
    readonly failure: string | null;
  }[];
}

export interface WorkerOrder {
  readonly bundleDir: string;
  readonly stateDir: string;
  readonly count: number;
  readonly concurrency: number;
}

const roundTimeoutMs = 20 * 60_000;

/**
 * The OCI runtime-spec 1.0 configuration of one container: the usual namespaces, no network, a
 * read-only root with a tmpfs for what is written, no capabilities.
 */
export function containerSpec(rootDir: string, env: Readonly<Record<string, string>>): object {
  return {
    ociVersion: "1.0.2",
    process: {
      terminal: false,
      user: { uid: 0, gid: 0 },
      args: coldArgv,
      cwd: "/",
      env: Object.entries({ PATH: "/usr/local/bin:/usr/bin:/bin", ...env }).map(
        ([name, value]) => `${name}=${value}`,
      ),
      capabilities: { bounding: [], effective: [], permitted: [] },
      noNewPrivileges: true,
    },
    root: { path: rootDir, readonly: true },
    hostname: "bench",
    mounts: [
      { destination: "/proc", type: "proc", source: "proc" },
      { destination: "/dev", type: "tmpfs", source: "tmpfs", options: ["mode=755", "size=64k"] },
      { destination: "/tmp", type: "tmpfs", source: "tmpfs", options: ["mode=1777"] },
    ],
    linux: {
      namespaces: ["pid", "mount", "ipc", "uts", "network"].map((type) => ({ type })),
    },
  };
}

/**
 * Sets up what a round needs inside a mount namespace of its own, all of which goes with it: the
 * image on a loop device, a tmpfs for bundle and state, and a plain cgroup v2 tree, because crun
 * refuses hosts that mix both versions.
 */
const enterScript = [
  "set -eu",
  "image=$1; shift",
  "umount -R /sys/fs/cgroup 2>/dev/null || true",
  "mount -t cgroup2 cgroup2 /sys/fs/cgroup",
  "mount -t tmpfs bench /mnt",
  "mkdir /mnt/root /mnt/bundle /mnt/state",
  'mount -o loop,ro "$image" /mnt/root',
  'exec "$@"',
].join("\n");

export async function measureContainers(order: ContainerOrder): Promise<ContainerRound> {
  const { count, concurrency } = order;
  const workerOrder: WorkerOrder = {
    bundleDir: "/mnt/bundle",
    stateDir: "/mnt/state",
    count,
    concurrency,
  };
  const spec = containerSpec("/mnt/root", order.env);
  const worker = join(import.meta.dirname, "container-worker.ts");
  const node = [process.execPath, "--conditions=forkd-source", worker];
  const enter = ["unshare", "--mount", "sh", "-c", enterScript, "sh", order.rootImage];
  try {
    const input = JSON.stringify({ order: workerOrder, spec });
    const { stdout } = await run([...enter, ...node], { input, timeoutMs: roundTimeoutMs });
    return summarize(JSON.parse(stdout) as WorkerReport, order);
  } catch (error) {
    const failures = [toForkdError(error).message];
    const nothing = { verified: 0, total_ms: 0, answer_ms: null, each_ms: null };
    return { count, concurrency, ...nothing, failures };
  }
}

function summarize(report: WorkerReport, { count, concurrency }: ContainerOrder): ContainerRound {
  const right = report.children.filter(({ failure }) => failure === null);
  return {
    count,
    verified: right.length,
    concurrency,
    total_ms: report.totalMs,
    answer_ms: spread(right.map(({ answerMs }) => answerMs)),
    each_ms: spread(right.map(({ ownMs }) => ownMs)),
    failures: report.children.map(({ failure }) => failure).filter((text) => text !== null),
  };
}
