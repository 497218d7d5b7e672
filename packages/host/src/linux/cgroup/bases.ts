import { mkdir, readFile, writeFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { isErrno } from "../../lib/atomic.ts";
import { processesOf, wordsOf } from "./group.ts";
import type { Hierarchy } from "./hierarchies.ts";
import { type Controller, controllers, v1Names } from "./settings.ts";

/** A directory below which groups with these controllers can be made. */
export interface Base {
  readonly version: 1 | 2;
  readonly dir: string;
  readonly controllers: readonly Controller[];
}

export interface Bases {
  readonly bases: readonly Base[];
  /** Why the other controllers cannot be had. */
  readonly reasons: ReadonlyMap<Controller, string>;
}

/** Our own group below a delegated one: in v2 only leaves may hold processes. */
const leafName = "forkd-daemon";

/**
 * Makes the groups `path` (names from the top on) in every hierarchy that one of our controllers
 * is in. Below the top that this process sees, as the runbook and other engines do, so the place is
 * the same for every owner; below our own group when only that was delegated to us. Idempotent.
 */
export async function prepareBases(
  hierarchies: readonly Hierarchy[],
  path: readonly string[],
): Promise<Bases> {
  const reasons = new Map<Controller, string>();
  const bases: Base[] = [];
  const unified = hierarchies.find(({ version }) => version === 2);
  if (unified !== undefined) {
    const base = await prepareUnified(unified, path, reasons);
    if (base !== undefined) bases.push(base);
  }
  for (const controller of controllers) {
    if (bases.some((base) => base.controllers.includes(controller))) continue;
    const base = await prepareV1(controller, { hierarchies, path, reasons });
    if (base !== undefined) bases.push(base);
  }
  for (const controller of bases.flatMap((base) => base.controllers)) reasons.delete(controller);
  return { bases, reasons };
}

function tops({ mountPoint, ownDir }: Hierarchy): string[] {
  const home = basename(ownDir) === leafName ? dirname(ownDir) : ownDir;
  return mountPoint === home ? [mountPoint] : [mountPoint, home];
}

/** Every place where {@link prepareBases} may have made a group of this name, there or not. */
export function treeTops(hierarchies: readonly Hierarchy[], name: string): string[] {
  return hierarchies.flatMap((hierarchy) => tops(hierarchy).map((top) => join(top, name)));
}

/** The first top that gives any controller. */
async function prepareUnified(
  hierarchy: Hierarchy,
  path: readonly string[],
  reasons: Map<Controller, string>,
): Promise<Base | undefined> {
  for (const top of tops(hierarchy)) {
    const dir = join(top, ...path);
    try {
      const enabled = await descend(top, path, reasons);
      if (enabled.length > 0) return { version: 2, dir, controllers: enabled };
    } catch (error) {
      for (const controller of controllers) note(reasons, controller, wordsOf(error));
    }
  }
  return undefined;
}

/** A group's children get a controller only if every group above enables it for its own. */
async function descend(
  top: string,
  path: readonly string[],
  reasons: Map<Controller, string>,
): Promise<Controller[]> {
  let dir = top;
  let enabled = await enable(dir, controllers, reasons);
  for (const name of path) {
    if (enabled.length === 0) return [];
    dir = join(dir, name);
    await mkdir(dir, { recursive: true });
    enabled = await enable(dir, enabled, reasons);
  }
  return enabled;
}

/** One by one: a controller that the kernel refuses must not cost the others. */
async function enable(
  dir: string,
  wanted: readonly Controller[],
  reasons: Map<Controller, string>,
): Promise<Controller[]> {
  const present = (await readFile(join(dir, "cgroup.controllers"), "utf8")).trim().split(" ");
  const enabled: Controller[] = [];
  for (const controller of wanted) {
    if (!present.includes(controller)) {
      note(reasons, controller, `${dir} has no ${controller} controller`);
      continue;
    }
    try {
      await enableOne(dir, controller);
      enabled.push(controller);
    } catch (error) {
      note(reasons, controller, `${dir} does not give its ${controller} on: ${wordsOf(error)}`);
    }
  }
  return enabled;
}

async function enableOne(dir: string, controller: Controller): Promise<void> {
  const file = join(dir, "cgroup.subtree_control");
  if ((await readFile(file, "utf8")).trim().split(" ").includes(controller)) return;
  const write = (): Promise<void> => writeFile(file, `+${controller}`, { flag: "r+" });
  try {
    await write();
  } catch (error) {
    // The group holds processes. When it is ours alone, we can step into a leaf of it.
    if (!isErrno(error, "EBUSY") || !(await stepIntoLeaf(dir))) throw error;
    await write();
  }
}

async function stepIntoLeaf(dir: string): Promise<boolean> {
  const pids = await processesOf(dir);
  if (pids.length !== 1 || pids[0] !== process.pid) return false;
  const leaf = join(dir, leafName);
  await mkdir(leaf, { recursive: true });
  await writeFile(join(leaf, "cgroup.procs"), String(process.pid), { flag: "r+" });
  return true;
}

interface V1Search {
  readonly hierarchies: readonly Hierarchy[];
  readonly path: readonly string[];
  readonly reasons: Map<Controller, string>;
}

async function prepareV1(controller: Controller, search: V1Search): Promise<Base | undefined> {
  const { hierarchies, path, reasons } = search;
  const name = v1Names[controller];
  const hierarchy = hierarchies.find(({ controllers: names }) => names.includes(name));
  if (hierarchy === undefined) {
    note(reasons, controller, `no cgroup hierarchy with the ${name} controller is mounted`);
    return undefined;
  }
  for (const top of tops(hierarchy)) {
    try {
      await mkdir(join(top, ...path), { recursive: true });
      return { version: 1, dir: join(top, ...path), controllers: [controller] };
    } catch (error) {
      note(reasons, controller, wordsOf(error));
    }
  }
  return undefined;
}

/** The first reason is the one of the best place. */
function note(reasons: Map<Controller, string>, controller: Controller, reason: string): void {
  if (!reasons.has(controller)) reasons.set(controller, reason);
}
