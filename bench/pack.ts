import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readdir, readFile, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { parseArgs } from "node:util";
import { ForkdError, parseSnapshotTag } from "@forkd/api";
import { type DataPaths, resolveDataPaths } from "@forkd/host/config/data-paths.ts";
import { findBootFile } from "@forkd/host/store/boot-files.ts";
import { layout } from "@forkd/host/store/layout.ts";
import { readManifest } from "@forkd/host/store/manifest.ts";
import { type HostFacts, hostFacts } from "./facts.ts";
import { writeResult } from "./result-file.ts";
import { type Spread, spread } from "./stats.ts";
import { formatTable, ms } from "./table.ts";

/** Both contenders on the same files. */
interface Contest {
  /** `whole`: with root image and kernel; `thin`: the snapshot alone. */
  readonly what: "whole" | "thin";
  readonly pack_ms: Spread | null;
  readonly tar_ms: Spread | null;
  /** Of each round: how much faster than tar and zstd the pack was. */
  readonly speed: Spread | null;
  /** The same of processor time, which other work on the host does not move as much. */
  readonly thrift: Spread | null;
  readonly pack_bytes: number;
  readonly tar_bytes: number;
  /** Most that forkd and its children held at one time, as their high-water marks say. */
  readonly peak_bytes: number;
}

interface PackResult {
  readonly bench: "pack";
  readonly format: 1;
  readonly host: HostFacts;
  readonly tag: string;
  readonly rounds: number;
  readonly contests: readonly Contest[];
}

const roundsDefault = 5;
const roundsMax = 100;
/** Between two looks at the memory of what runs. */
const lookIntervalMs = 20;
/** Of times in /proc: USER_HZ is 100 on every Linux that we know. */
const clockTickMs = 10;
const forkd = join(import.meta.dirname, "../bin/forkd");

interface Timed {
  readonly ms: number;
  readonly cpuMs: number;
  readonly peakBytes: number;
}

/** Runs a program to its end. Throws tool_failed. */
async function timed(argv: readonly [string, ...string[]]): Promise<Timed> {
  const [program, ...args] = argv;
  const cpuBefore = await childrenCpuMs();
  const began = performance.now();
  const child = spawn(program, args, { stdio: ["ignore", "ignore", "pipe"] });
  let words = "";
  child.stderr.on("data", (text: Buffer) => {
    words = `${words}${text}`.slice(-2000);
  });
  const marks = new Map<number, number>();
  const timer = setInterval(() => void look(child.pid ?? 0, marks), lookIntervalMs);
  await once(child, "close");
  clearInterval(timer);
  if (child.exitCode !== 0) throw new ForkdError("tool_failed", `${program}: ${words}`);
  const peakBytes = [...marks.values()].reduce((sum, bytes) => sum + bytes, 0);
  const elapsedMs = performance.now() - began;
  return { ms: elapsedMs, cpuMs: (await childrenCpuMs()) - cpuBefore, peakBytes };
}

/** What ended children of this process, and theirs, have used: cutime and cstime of proc(5). */
async function childrenCpuMs(): Promise<number> {
  const text = await readFile("/proc/self/stat", "latin1");
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[13]) + Number(fields[14])) * clockTickMs;
}

/** Notes the high-water mark of a process and of its children, by pid. */
async function look(pid: number, marks: Map<number, number>): Promise<void> {
  try {
    const text = await readFile(`/proc/${pid}/status`, "latin1");
    const [, kib] = /^VmHWM:\s+(\d+) kB$/m.exec(text) ?? [];
    marks.set(pid, Number(kib ?? 0) * 1024);
    for (const task of await readdir(`/proc/${pid}/task`)) {
      const children = await readFile(`/proc/${pid}/task/${task}/children`, "latin1");
      for (const each of children.split(" ").filter((word) => word !== "")) {
        await look(Number(each), marks);
      }
    }
  } catch {
    // It has ended between two looks.
  }
}

interface Scope {
  readonly paths: DataPaths;
  readonly tag: string;
  readonly dir: string;
  readonly rounds: number;
}

/** What a pack holds, as paths in the data directory. */
async function filesOf({ paths, tag }: Scope, what: Contest["what"]): Promise<string[]> {
  const dir = layout.snapshotDir(paths, parseSnapshotTag(tag));
  const { manifest } = await readManifest(dir);
  if (manifest.parent !== null) throw new ForkdError("bad_request", `'${tag}' is not a base`);
  const { kernel, rootfs } = manifest;
  const image = layout.rootImage(paths, rootfs.sha256);
  const boots = [kernel.vmlinuz_sha256, kernel.initrd_sha256].map((hash) =>
    findBootFile(paths, hash),
  );
  const found = (await Promise.all(boots)).filter((file) => file !== undefined);
  const whole = [image, image.replace(/img$/, "json"), ...found];
  return [dir, ...(what === "whole" ? whole : [])].map((file) => relative(paths.dataDir, file));
}

async function contest(scope: Scope, what: Contest["what"]): Promise<Contest> {
  const { paths, tag, dir, rounds } = scope;
  const [ours, theirs] = [join(dir, "pack.zst"), join(dir, "tar.zst")];
  const files = await filesOf(scope, what);
  const thin = what === "thin" ? ["--thin"] : [];
  const pack = ["env", `FORKD_DATA_DIR=${paths.dataDir}`, forkd, "pack", "--tag", tag] as const;
  const script =
    'out=$1; dir=$2; shift 2; tar --sparse -C "$dir" -cf - "$@" | zstd -qfT0 -o "$out"';
  const tar = ["bash", "-o", "pipefail", "-c", script, "tar", theirs, paths.dataDir] as const;
  const runs: { pack: Timed; tar: Timed }[] = [];
  // The first round brings the files into the page cache; it does not count.
  for (let round = 0; round <= rounds; round += 1) {
    const run = {
      tar: await timed([...tar, ...files]),
      pack: await timed([...pack, "--out", ours, "--force", ...thin]),
    };
    if (round > 0) runs.push(run);
  }
  return {
    what,
    pack_ms: spread(runs.map((run) => run.pack.ms)),
    tar_ms: spread(runs.map((run) => run.tar.ms)),
    speed: spread(runs.map((run) => run.tar.ms / run.pack.ms)),
    thrift: spread(runs.map((run) => run.tar.cpuMs / run.pack.cpuMs)),
    pack_bytes: (await stat(ours)).size,
    tar_bytes: (await stat(theirs)).size,
    peak_bytes: Math.max(...runs.map((run) => run.pack.peakBytes)),
  };
}

const mib = (bytes: number): string => `${(bytes / 1024 ** 2).toFixed(1)}`;

function print({ rounds, contests }: PackResult): void {
  const rows = contests.map((each) => [
    each.what,
    ms(each.pack_ms?.p50),
    ms(each.tar_ms?.p50),
    (each.speed?.p50 ?? 0).toFixed(2),
    (each.thrift?.p50 ?? 0).toFixed(2),
    mib(each.pack_bytes),
    mib(each.tar_bytes),
    (each.pack_bytes / each.tar_bytes).toFixed(3),
    mib(each.peak_bytes),
  ]);
  const times = ["what", "pack ms", "tar ms", "speed", "cpu"];
  console.log(`${rounds} rounds, medians; tar is: tar --sparse | zstd -T0, of the same files\n`);
  console.log(formatTable([...times, "pack MiB", "tar MiB", "size", "peak MiB"], rows));
}

/** Packs a base and lets tar and zstd do the same. Resolves to the exit code. */
export async function benchPack(args: readonly string[]): Promise<number> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      rounds: { type: "string", default: String(roundsDefault) },
      tag: { type: "string", default: "quickstart" },
      json: { type: "string" },
    },
  });
  const rounds = Number(values.rounds);
  if (!Number.isInteger(rounds) || rounds < 1 || rounds > roundsMax) {
    throw new ForkdError("bad_request", `--rounds needs 1 to ${roundsMax}, not ${values.rounds}`);
  }
  const paths = resolveDataPaths(process.env, process.getuid?.() ?? 0);
  const dir = await mkdtemp(join(tmpdir(), "forkd-bench-pack-"));
  try {
    const scope = { paths, tag: values.tag, dir, rounds };
    const contests = [await contest(scope, "whole"), await contest(scope, "thin")];
    const host = await hostFacts(paths.dataDir);
    const { tag } = scope;
    const result: PackResult = { bench: "pack", format: 1, host, tag, rounds, contests };
    print(result);
    if (values.json !== undefined) await writeResult(values.json, result);
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
  return 0;
}
