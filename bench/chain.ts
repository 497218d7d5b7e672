import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { ForkdError, type SnapshotInfoDetail } from "@forkd/api";
import { resolveDataPaths } from "@forkd/host/config/data-paths.ts";
import { Client } from "@forkd/sdk";
import { compareChain, type Identical } from "./chain-bytes.ts";
import { startDaemon } from "./daemon.ts";
import { type HostFacts, hostFacts } from "./facts.ts";
import { writeResult } from "./result-file.ts";
import { median, ratio, type Spread, spread } from "./stats.ts";
import { formatTable, mib, ms, times } from "./table.ts";

/** One snapshot of the chain. Times are from the request of a spawn of one to its answer. */
interface DepthRow {
  readonly depth: number;
  /** The sum of the pages that changed, and what the whole snapshot takes on disk. */
  readonly data_bytes: number;
  readonly disk_bytes: number;
  /** The first spawn, which puts the chain's image together. */
  readonly first_ms: number;
  readonly warm_ms: Spread | null;
  /** The median of the warm spawns, to that of the same guest without depth. */
  readonly warm_ratio: number | null;
  readonly bytes: Identical;
}

interface ChainResult {
  readonly bench: "chain";
  readonly format: 1;
  readonly host: HostFacts;
  readonly dirty_mib: number;
  readonly rounds: number;
  readonly rows: readonly DepthRow[];
  /** The deepest snapshot, compacted into a base of its own. */
  readonly flat: { readonly first_ms: number; readonly warm_ms: Spread | null };
}

interface Options {
  readonly tag: string;
  readonly depth: number;
  readonly dirtyMib: number;
  readonly rounds: number;
  readonly json: string | undefined;
}

const requestTimeoutMs = 600_000;
const flatTag = "bench-chain-flat";
const blockBytes = 512;

const tagAt = (options: Options, depth: number): string =>
  depth === 0 ? options.tag : `bench-chain-${depth}`;

/** Builds a chain of real branches and spawns from each of its depths. Resolves to the exit code. */
export async function benchChain(args: readonly string[]): Promise<number> {
  const options = parseOptions(args);
  await using daemon = await startDaemon();
  const client = new Client({ url: daemon.url, timeoutMs: requestTimeoutMs });
  const tags = Array.from({ length: options.depth + 1 }, (_, depth) => tagAt(options, depth));
  try {
    const firsts = await buildChain(client, options);
    await client.compactSnapshot({ params: { tag: tags.at(-1) ?? "" }, body: { to: flatTag } });
    const flatFirst = await spawnOnce(client, flatTag);
    const warm = await spawnInTurns(client, [...tags, flatTag], options.rounds);
    const flat = { first_ms: flatFirst, warm_ms: spread(warm.get(flatTag) ?? []) };
    const rows = await describeRows({ client, tags, firsts, warm });
    const paths = resolveDataPaths(process.env, process.getuid?.() ?? 0);
    const result: ChainResult = {
      bench: "chain",
      format: 1,
      host: await hostFacts(paths.dataDir),
      dirty_mib: options.dirtyMib,
      rounds: options.rounds,
      rows,
      flat,
    };
    print(result);
    if (options.json !== undefined) await writeResult(options.json, result);
    return rows.every((row) => row.bytes.identical) ? 0 : 1;
  } finally {
    await cleanUp(client, tags.slice(1));
  }
}

/** Leaves the store as it was; what was not made is not there. */
async function cleanUp(client: Client, links: readonly string[]): Promise<void> {
  for (const tag of [flatTag, ...links.toReversed()]) {
    await client.deleteSnapshot({ params: { tag } }).catch(() => undefined);
  }
}

/** Branches a child of each link into the next one. Answers the time of each link's first spawn. */
async function buildChain(client: Client, options: Options): Promise<number[]> {
  const firsts: number[] = [];
  for (let depth = 0; depth <= options.depth; depth += 1) {
    const started = performance.now();
    const id = await spawn(client, tagAt(options, depth));
    firsts.push(performance.now() - started);
    try {
      if (depth === options.depth) continue;
      await dirty(client, id, { mib: options.dirtyMib, file: `/tmp/bench-chain-${depth}` });
      const body = { tag: tagAt(options, depth + 1), mode: "diff" } as const;
      await client.branchSandbox({ params: { id }, body });
    } finally {
      await client.deleteSandbox({ params: { id } });
    }
    console.error(`depth ${depth}: first spawn ${ms(firsts.at(-1))} ms`);
  }
  return firsts;
}

async function spawn(client: Client, tag: string): Promise<string> {
  const [sandbox] = await client.createSandboxes({ body: { snapshot_tag: tag, n: 1 } });
  if (sandbox === undefined) throw new ForkdError("internal", "the daemon spawned nothing");
  return sandbox.id;
}

async function spawnOnce(client: Client, tag: string): Promise<number> {
  const started = performance.now();
  const id = await spawn(client, tag);
  const took = performance.now() - started;
  await client.deleteSandbox({ params: { id } });
  return took;
}

/** What an installation leaves: new files, in the memory that the guest's file system lies in. */
async function dirty(
  client: Client,
  id: string,
  { mib: count, file }: { readonly mib: number; readonly file: string },
): Promise<void> {
  const args = ["dd", "if=/dev/urandom", `of=${file}`, "bs=1M", `count=${count}`];
  const body = { args, timeout_secs: requestTimeoutMs / 1000 };
  const { exit_code: code, stderr } = await client.execSandbox({ params: { id }, body });
  if (code !== 0)
    throw new ForkdError("exec_failed", `dd in the guest ended with ${code}: ${stderr}`);
}

/** In turns, so that whatever else the host does falls on all of them alike. */
async function spawnInTurns(
  client: Client,
  tags: readonly string[],
  rounds: number,
): Promise<ReadonlyMap<string, readonly number[]>> {
  const took = new Map<string, number[]>(tags.map((tag) => [tag, []]));
  for (let round = 0; round < rounds; round += 1) {
    for (const tag of round % 2 === 0 ? tags : tags.toReversed()) {
      took.get(tag)?.push(await spawnOnce(client, tag));
    }
  }
  return took;
}

interface Measured {
  readonly client: Client;
  readonly tags: readonly string[];
  readonly firsts: readonly number[];
  readonly warm: ReadonlyMap<string, readonly number[]>;
}

async function describeRows({ client, tags, firsts, warm }: Measured): Promise<DepthRow[]> {
  const infos: SnapshotInfoDetail[] = [];
  for (const tag of tags) infos.push(await client.getSnapshotInfo({ params: { tag } }));
  const compared = await compareChain(tags);
  const flat = median(warm.get(flatTag) ?? []);
  return Promise.all(
    infos.map(async (info, depth) => {
      const spawns = warm.get(info.tag) ?? [];
      return {
        depth,
        data_bytes: info.memory_data_bytes,
        disk_bytes: await diskBytes(info.dir),
        first_ms: firsts[depth] ?? Number.NaN,
        warm_ms: spread(spawns),
        warm_ratio: ratio(median(spawns), flat),
        bytes: compared[depth] ?? { identical: false, runs: 0, image_bytes: 0 },
      };
    }),
  );
}

async function diskBytes(dir: string): Promise<number> {
  const stats = await Promise.all((await readdir(dir)).map((name) => stat(join(dir, name))));
  return stats.reduce((sum, { blocks }) => sum + blocks * blockBytes, 0);
}

function print({ rows, flat, dirty_mib }: ChainResult): void {
  const header = ["depth", "changed MiB", "disk MiB", "disk/changed", "image MiB", "runs"];
  const lines = rows.map((row) => [
    String(row.depth),
    mib(row.data_bytes),
    mib(row.disk_bytes),
    times(ratio(row.disk_bytes, row.data_bytes)),
    mib(row.bytes.image_bytes),
    String(row.bytes.runs),
    ms(row.first_ms),
    ms(row.warm_ms?.p50),
    times(row.warm_ratio),
    row.bytes.identical ? "yes" : "NO",
  ]);
  const last = ["flat", "-", "-", "-", "-", "-", ms(flat.first_ms), ms(flat.warm_ms?.p50), "1.00"];
  console.log(`${dirty_mib} MiB written in the guest for each link; spawns of one child\n`);
  const all = [...header, "first ms", "warm p50 ms", "to flat", "identical"];
  console.log(formatTable(all, [...lines, [...last, "-"]]));
}

function parseOptions(args: readonly string[]): Options {
  const { values } = parseArgs({
    args: [...args],
    options: {
      tag: { type: "string", default: "quickstart" },
      depth: { type: "string", default: "16" },
      "dirty-mib": { type: "string", default: "8" },
      rounds: { type: "string", default: "10" },
      json: { type: "string" },
    },
  });
  const whole = (name: "depth" | "dirty-mib" | "rounds", max: number): number => {
    const value = Number(values[name]);
    if (Number.isInteger(value) && value >= 1 && value <= max) return value;
    throw new ForkdError("bad_request", `--${name} needs 1 to ${max}, not ${values[name]}`);
  };
  return {
    tag: values.tag,
    depth: whole("depth", 64),
    dirtyMib: whole("dirty-mib", 100),
    rounds: whole("rounds", 1000),
    json: values.json,
  };
}
