/** Bounds of one group; null leaves it unbounded. */
export interface GroupLimits {
  /** Bytes, a multiple of the page size. */
  readonly memoryBytes: number | null;
  /** Processors' worth of time, at least {@link cpusMin}. */
  readonly cpus: number | null;
  /** Tasks: processes and threads. */
  readonly pids: number | null;
  /** Bytes a second, to and from the disk of the tree's `ioPath`. */
  readonly readBps: number | null;
  readonly writeBps: number | null;
}

export type LimitName = keyof GroupLimits;

export const limitNames = [
  "memoryBytes",
  "cpus",
  "pids",
  "readBps",
  "writeBps",
] as const satisfies readonly LimitName[];

export type Controller = "memory" | "cpu" | "io" | "pids";

export const controllers = ["memory", "cpu", "io", "pids"] as const satisfies readonly Controller[];

/** Which controller holds which limit. */
export const controllerOf: Readonly<Record<LimitName, Controller>> = {
  memoryBytes: "memory",
  cpus: "cpu",
  pids: "pids",
  readBps: "io",
  writeBps: "io",
};

/** The names of the same controllers in a v1 hierarchy. */
export const v1Names: Readonly<Record<Controller, string>> = {
  memory: "memory",
  cpu: "cpu",
  io: "blkio",
  pids: "pids",
};

/** The kernel's default period, and the least quota that it takes (kernel/sched/core.c). */
const periodUs = 100_000;
const quotaMinUs = 1_000;
export const cpusMin = quotaMinUs / periodUs;

/** One file of a group to write. */
export interface Setting {
  readonly file: string;
  readonly text: string;
  /** A line that the file must hold afterwards, spaces at its ends aside. */
  readonly expected: RegExp;
  /** Whether the limit is in force without it, on kernels that have no such file. */
  readonly optional: boolean;
}

export interface LimitPlan {
  readonly settings: readonly Setting[];
}

/** The limit cannot be had from this version of cgroups, whatever the host. */
export interface Impossible {
  readonly reason: string;
}

export interface PlanContext {
  readonly version: 1 | 2;
  /** `MAJOR:MINOR` of the disk that io limits are about. */
  readonly device: string;
}

/** What to write for one limit, in this order. */
export function planLimit(
  name: LimitName,
  value: number,
  { version, device }: PlanContext,
): LimitPlan | Impossible {
  switch (name) {
    case "memoryBytes":
      return { settings: version === 2 ? memoryV2(value) : memoryV1(value) };
    case "cpus":
      return { settings: version === 2 ? cpuV2(value) : cpuV1(value) };
    case "pids":
      return { settings: [exact("pids.max", value)] };
    case "readBps":
      return {
        settings: [version === 2 ? ioMax(device, "rbps", value) : readBpsV1(device, value)],
      };
    case "writeBps":
      return version === 2 ? { settings: [ioMax(device, "wbps", value)] } : writesUnseen;
  }
}

const writesUnseen: Impossible = {
  reason: "cgroup v1 does not know whose the writes are that go through the page cache",
};

function exact(file: string, value: number, optional = false): Setting {
  return { file, text: String(value), expected: new RegExp(`^${value}$`), optional };
}

/** Swap would let a group use more than its limit of the host; a kernel without it has no file. */
function memoryV2(bytes: number): Setting[] {
  return [
    exact("memory.max", bytes),
    exact("memory.swap.max", 0, true),
    exact("memory.oom.group", 1, true),
  ];
}

/** Memory with swap must be bounded second: it may never be the smaller one. */
function memoryV1(bytes: number): Setting[] {
  return [exact("memory.limit_in_bytes", bytes), exact("memory.memsw.limit_in_bytes", bytes, true)];
}

function quotaUs(cpus: number): number {
  return Math.max(quotaMinUs, Math.round(cpus * periodUs));
}

function cpuV2(cpus: number): Setting[] {
  const text = `${quotaUs(cpus)} ${periodUs}`;
  return [{ file: "cpu.max", text, expected: new RegExp(`^${text}$`), optional: false }];
}

function cpuV1(cpus: number): Setting[] {
  return [exact("cpu.cfs_period_us", periodUs), exact("cpu.cfs_quota_us", quotaUs(cpus))];
}

function ioMax(device: string, key: "rbps" | "wbps", value: number): Setting {
  return {
    file: "io.max",
    text: `${device} ${key}=${value}`,
    expected: new RegExp(`^${device} (.* )?${key}=${value}( |$)`),
    optional: false,
  };
}

function readBpsV1(device: string, value: number): Setting {
  const text = `${device} ${value}`;
  return {
    file: "blkio.throttle.read_bps_device",
    text,
    expected: new RegExp(`^${text}$`),
    optional: false,
  };
}
