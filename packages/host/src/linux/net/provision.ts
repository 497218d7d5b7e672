import { existsSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { ForkdError } from "@forkd/api";
import { Semaphore } from "../../lib/semaphore.ts";
import { type ChildOptions, hostLines, insideScript } from "./child-setup.ts";
import { deviceList } from "./devices.ts";
import { runIp, runShell } from "./enter.ts";
import { hasIpv6, readHostState, setUpHost, tearDownHost } from "./host-setup.ts";
import {
  type ChildNet,
  childNet,
  childNumber,
  type HostNetSettings,
  hostNetDefaults,
  netnsDir,
} from "./plan.ts";
import { NetnsPool } from "./pool.ts";

/** Namespaces that are filled at one time: more only queue for the kernel's lock. */
const concurrencyMax = 4;
/** Commands of one call of ip(8), so that a failure costs little. */
const perBatch = 50;
/** Fifty namespaces on a host that has a thousand of them. */
const batchTimeoutMs = 300_000;

export interface ProvisionRequest {
  /** Namespaces 1 to `count` exist afterwards; more are left as they are. */
  readonly count: number;
  readonly settings: HostNetSettings;
  /** Who may open the taps besides root; null: nobody. */
  readonly user: string | null;
  readonly progress: (message: string) => void;
}

export interface ProvisionResult {
  readonly made: number;
  readonly kept: number;
}

/** Makes the namespaces that are missing. One that was left half made is made again. */
export async function provision(request: ProvisionRequest): Promise<ProvisionResult> {
  requireRoot();
  const { count, settings, progress } = request;
  await setUpHost(settings);
  const pool = new NetnsPool();
  const whole = await pool.whole();
  const all = Array.from({ length: count }, (_, at) => childNet(at + 1, settings.net4));
  const missing = all.filter(({ number }) => !whole.has(number));
  const options = { user: request.user, ipv6: hasIpv6() };
  for (let at = 0; at < missing.length; at += perBatch) {
    const batch = missing.slice(at, at + perBatch);
    await makeBatch(batch, settings, options);
    for (const child of batch) await pool.add(child.number, settings.net4);
    progress(`${at + batch.length} of ${missing.length} namespaces made`);
  }
  return { made: missing.length, kept: all.length - missing.length };
}

async function makeBatch(
  batch: readonly ChildNet[],
  settings: HostNetSettings,
  options: ChildOptions,
): Promise<void> {
  await runIp(await removalLines(batch), { timeoutMs: batchTimeoutMs });
  const lines = batch.flatMap((child) => hostLines(child, settings, options));
  await runIp(lines, { timeoutMs: batchTimeoutMs });
  const what = "namespaces";
  const places = new Semaphore({ places: concurrencyMax, waitingMax: perBatch, what });
  await Promise.all(
    batch.map((child) => places.run(() => runShell(insideScript(child, options), child.netnsFile))),
  );
}

/** Devices that are removed together: one by one, the kernel waits for each. */
const doomedGroup = 61_709;

/** The link first: a namespace takes its devices along only some time after its name. */
async function removalLines(children: readonly ChildNet[]): Promise<string[]> {
  const devices = await deviceList();
  const links = children.map(({ hostLink }) => hostLink).filter((link) => devices.has(link));
  const named = children.filter(({ netnsFile }) => existsSync(netnsFile));
  return [
    ...links.map((link) => `link set ${link} group ${doomedGroup}`),
    ...(links.length === 0 ? [] : [`link del group ${doomedGroup}`]),
    ...named.map(({ name }) => `netns del ${name}`),
  ];
}

export interface TeardownRequest {
  /** Only namespaces 1 to `count`; null: all. */
  readonly count: number | null;
  /** The bridge, its rules and what was changed of the host too, when no namespace is left. */
  readonly includeBridge: boolean;
}

export interface TeardownPlan {
  readonly removed: readonly string[];
  /** Those that sandboxes have: they stay. */
  readonly inUse: readonly string[];
  readonly bridge: string | null;
}

/** What {@link tearDown} would do; changes nothing. */
export async function planTeardown(request: TeardownRequest): Promise<TeardownPlan> {
  const names = await readdir(netnsDir).catch(() => []);
  const held = new Set((await new NetnsPool().held()).map(({ number }) => number));
  const max = request.count ?? Number.POSITIVE_INFINITY;
  const numbers = names
    .flatMap((name) => childNumber(name) ?? [])
    .filter((number) => number <= max)
    .sort((a, b) => a - b);
  const nameOf = (number: number): string => childNet(number).name;
  const { bridge } = (await readHostState()) ?? hostNetDefaults;
  const isThere = (await deviceList()).has(bridge);
  return {
    removed: numbers.filter((number) => !held.has(number)).map(nameOf),
    inUse: numbers.filter((number) => held.has(number)).map(nameOf),
    bridge: request.includeBridge && isThere ? bridge : null,
  };
}

/** Removes namespaces that nobody has, with all that is in them. */
export async function tearDown(request: TeardownRequest): Promise<TeardownPlan> {
  requireRoot();
  const plan = await planTeardown(request);
  const pool = new NetnsPool();
  const free = new Set(await pool.free());
  const gone: ChildNet[] = [];
  for (const name of plan.removed) {
    const child = childNet(childNumber(name) ?? 0);
    // One that was free a moment ago may have been taken; one that never was complete has no token.
    if (free.has(child.number) && !(await pool.remove(name))) continue;
    gone.push(child);
  }
  for (let at = 0; at < gone.length; at += perBatch) {
    const lines = await removalLines(gone.slice(at, at + perBatch));
    await runIp(lines, { timeoutMs: batchTimeoutMs });
  }
  if (plan.bridge === null) return plan;
  if (plan.inUse.length > 0) {
    throw new ForkdError("netns_unavailable", `${plan.bridge} stays: sandboxes use it`, {
      hint: "end them first: forkd-controller drain, or forkd kill ID",
    });
  }
  await tearDownHost((await readHostState()) ?? hostNetDefaults);
  return plan;
}

function requireRoot(): void {
  if (process.getuid?.() === 0) return;
  throw new ForkdError("permission_denied", "network namespaces are made by root", {
    hint: "run it with sudo",
  });
}
