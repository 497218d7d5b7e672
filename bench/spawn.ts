import { mkdir, writeFile } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { parseArgs } from "node:util";
import { ForkdError, limits, parseSnapshotTag, type SnapshotTag } from "@forkd/api";
import { type DataPaths, resolveDataPaths } from "@forkd/host/config/data-paths.ts";
import { openForkService } from "@forkd/host/fork/open-service.ts";
import type { BakeImage, ForkService } from "@forkd/host/fork/service.ts";
import { silentLogger } from "@forkd/host/lib/log.ts";
import { layout } from "@forkd/host/store/layout.ts";
import { type Manifest, readManifest } from "@forkd/host/store/manifest.ts";
import { findRootImage } from "@forkd/host/store/rootfs.ts";
import { measureColdBoots } from "./cold-boots.ts";
import { measureContainers } from "./containers.ts";
import { hostFacts } from "./facts.ts";
import { type ForkRound, measureForks } from "./forks.ts";
import { printSpawnReport } from "./spawn-report.ts";
import { compare, type SizeResult, type SpawnResult } from "./spawn-result.ts";

interface SpawnBench {
  readonly counts: readonly number[];
  readonly rounds: number;
  readonly tag: SnapshotTag;
  readonly coldBoots: number;
  readonly idleMs: number;
  readonly jsonFile: string | null;
}

const progress = (message: string): void => console.error(`-- ${message}`);

function positive(text: string, name: string): number {
  const value = Number(text);
  if (Number.isInteger(value) && value >= 0 && value <= limits.spawnCountMax) return value;
  throw new ForkdError("bad_request", `--${name} needs a whole number, not ${text}`);
}

function parseSpawnArgs(args: readonly string[]): SpawnBench {
  const { values } = parseArgs({
    args: [...args],
    options: {
      n: { type: "string", default: "1,10,100" },
      rounds: { type: "string", default: "3" },
      tag: { type: "string", default: "quickstart" },
      "cold-boots": { type: "string", default: "4" },
      "idle-secs": { type: "string", default: "20" },
      json: { type: "string" },
    },
  });
  return {
    counts: values.n.split(",").map((text) => positive(text, "n")),
    rounds: Math.max(1, positive(values.rounds, "rounds")),
    tag: parseSnapshotTag(values.tag),
    coldBoots: positive(values["cold-boots"], "cold-boots"),
    idleMs: positive(values["idle-secs"], "idle-secs") * 1000,
    jsonFile: values.json ?? null,
  };
}

/** The image and the machine of the snapshot, so that every contender runs the same bytes. */
async function openSubject(paths: DataPaths, tag: SnapshotTag): Promise<Subject> {
  const { manifest } = await readManifest(layout.snapshotDir(paths, tag));
  const root = await findRootImage(paths, manifest.rootfs.sha256);
  if (root === undefined) {
    throw new ForkdError("snapshot_incomplete", `the root image of ${tag} is not in the store`);
  }
  const { path, sha256, ref, config } = root;
  const { env, user, workdir } = config;
  return { manifest, image: { path, sha256, ref, env, user, workdir } };
}

interface Subject {
  readonly manifest: Manifest;
  readonly image: BakeImage;
}

interface Bench {
  readonly options: SpawnBench;
  readonly service: ForkService;
  readonly subject: Subject;
}

/** Forks and containers take turns, so that drift of the host meets both. */
async function measureSize(bench: Bench, count: number): Promise<SizeResult> {
  const { options, service, subject } = bench;
  const forks: ForkRound[] = [];
  const containers = [];
  for (let round = 1; round <= options.rounds; round += 1) {
    progress(`n=${count} round ${round} of ${options.rounds}: forks`);
    const idleMs = round === options.rounds && options.idleMs > 0 ? options.idleMs : null;
    forks.push(await measureForks({ service, tag: options.tag, count, idleMs }));
    progress(`n=${count} round ${round} of ${options.rounds}: cold containers`);
    containers.push(
      await measureContainers({
        rootImage: subject.image.path,
        env: subject.image.env,
        count,
        concurrency: Math.min(count, limits.concurrentRestoresMax),
      }),
    );
  }
  return { count, forks, containers };
}

async function measureAll(bench: Bench, paths: DataPaths): Promise<SpawnResult> {
  const { options, service, subject } = bench;
  const { image, manifest } = subject;
  progress("warming the page cache: 1 fork that does not count");
  await measureForks({ service, tag: options.tag, count: 1, idleMs: null });
  const sizes: SizeResult[] = [];
  for (const count of options.counts) sizes.push(await measureSize(bench, count));
  progress(`${options.coldBoots} cold boots of the same guest`);
  const { memory_mib: memoryMib, vcpus } = manifest.machine;
  const cold = { service, paths, image, memoryMib, vcpus };
  const single = await measureColdBoots({ ...cold, count: Math.min(1, options.coldBoots) });
  const several = await measureColdBoots({ ...cold, count: options.coldBoots });
  return {
    bench: "spawn",
    format: 1,
    host: await hostFacts(paths.dataDir),
    subject: {
      tag: options.tag,
      image: manifest.rootfs.ref,
      engine: manifest.engine,
      machine: manifest.machine,
    },
    sizes,
    cold_boot: { single, several },
    comparison: compare(sizes, { single, several }),
  };
}

/** Measures, prints the tables, writes the JSON. Resolves to the exit code. */
export async function benchSpawn(args: readonly string[]): Promise<number> {
  const options = parseSpawnArgs(args);
  const paths = resolveDataPaths(process.env, process.getuid?.() ?? 0);
  const subject = await openSubject(paths, options.tag);
  const log = silentLogger;
  const service = await openForkService({
    paths,
    owner: "cli",
    stateFile: null,
    log,
  });
  try {
    const result = await measureAll({ options, service, subject }, paths);
    printSpawnReport(result);
    if (options.jsonFile !== null) {
      const file = resolve(options.jsonFile);
      await mkdir(dirname(file), { recursive: true });
      await writeFile(file, `${JSON.stringify(result, null, 2)}\n`);
      console.log(`\nwritten: ${file}`);
    }
    return result.comparison.every(({ success_percent }) => success_percent === 100) ? 0 : 1;
  } finally {
    await service.close("kill");
  }
}
