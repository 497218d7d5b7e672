import { type EndReason, ForkdError, type SandboxInfo } from "@forkd/api";
import { Semaphore } from "../lib/semaphore.ts";
import { bootId as currentBootId, isAlive } from "../linux/proc.ts";
import { adoptChild } from "./adopt.ts";
import type { ForkDeps } from "./deps.ts";
import { type GiveBackDeps, giveBack } from "./give-back.ts";
import { Journal } from "./journal.ts";
import type { SandboxRecord } from "./record.ts";
import type { Sandboxes } from "./sandboxes.ts";
import { surveyWorkDirs, type WorkDirFinding } from "./survey.ts";
import { endProcessesIn, removeWorkDir } from "./work-dir.ts";

/** Sandboxes that are taken over, or undone, at one time. */
const concurrencyMax = 16;
const waitingMax = 100_000;
/** What a start of the daemon gives the sandboxes to answer; those that need longer go on. */
const settleMs = 2_000;

/**
 * Brings the kernel's truth and the records together at the start of a daemon: adopts what lives
 * and is whole, undoes the rest and remembers why. Throws state_corrupt when a record cannot be
 * read: nothing is changed then.
 */
export async function recover(deps: ForkDeps, sandboxes: Sandboxes): Promise<void> {
  const findings = await surveyWorkDirs(deps.paths);
  requireReadable(findings);
  const places = new Semaphore({ places: concurrencyMax, waitingMax, what: "adoptions" });
  const adopted: Promise<unknown>[] = [];
  const undone: Promise<unknown>[] = [];
  for (const { dir, kind, ...rest } of findings) {
    if (kind !== "orphan" && kind !== "leftover") continue;
    const record = "record" in rest ? rest.record : undefined;
    const work = () => settle(deps, sandboxes, { dir, record });
    (isAdoptable(record) ? adopted : undone).push(places.run(work));
  }
  await Promise.all(undone);
  await withinReason(Promise.all(adopted));
}

/** Like {@link recover} for a command line: a daemon's sandboxes wait for the next daemon. */
export async function sweepWorkDirs(deps: ForkDeps): Promise<void> {
  for (const finding of await surveyWorkDirs(deps.paths)) {
    const { dir, kind } = finding;
    if (kind === "leftover") await undo(deps, { dir, record: undefined });
    if (kind === "orphan" && finding.record?.outlives !== true) {
      await undo(deps, { dir, record: finding.record });
    }
  }
}

/** A work directory that nobody looks after; without a record it was a parent's, or never got one. */
export interface Orphan {
  readonly dir: string;
  readonly record: SandboxRecord | undefined;
}

/** Whether it is to be taken over as it is: nothing went wrong with it but its owner. */
export function isAdoptable(record: SandboxRecord | undefined): record is SandboxRecord {
  if (record?.phase !== "running" || !record.outlives || record.process === null) return false;
  return isAlive(record.process);
}

async function settle(deps: ForkDeps, sandboxes: Sandboxes, orphan: Orphan): Promise<void> {
  const { dir, record } = orphan;
  if (!isAdoptable(record)) {
    await undo(deps, orphan);
    return;
  }
  const journal = new Journal(dir, record, deps.onStep);
  const sandbox = sandboxes.adopt(journal, (_, scope) => adoptChild(deps, journal, scope));
  try {
    const child = await sandbox.opened;
    deps.log.info("adopted a sandbox", { id: sandbox.id });
    await child.agent.session();
  } catch (cause) {
    deps.log.warn("a sandbox is not what it was", { id: sandbox.id, cause });
  }
}

/** Ends what runs in a directory that nobody owns, gives back what its record names, removes it. */
export async function undo(deps: GiveBackDeps, { dir, record }: Orphan): Promise<void> {
  const pids = await endProcessesIn(dir);
  deps.log.warn("removing a work directory whose owner is gone", { dir, pids });
  if (record === undefined) await removeWorkDir(dir, deps.owner, deps.onStep);
  else {
    const { resources, outlives } = record;
    const info = outlives ? endedInfo(record) : null;
    await giveBack(deps, { workDir: dir, resources, info });
  }
}

function endedInfo(record: SandboxRecord): SandboxInfo {
  const { reason, detail } = orphanCause(record);
  const end = record.end ?? { reason, detail, at_unix_ms: Date.now() };
  return { ...record.info, state: "ended", end };
}

/** For one whose owner did not live to say. */
export function orphanCause({ bootId, phase }: SandboxRecord): {
  reason: EndReason;
  detail: string;
} {
  if (bootId !== currentBootId())
    return { reason: "host_restart", detail: "the host was restarted" };
  if (phase === "starting") {
    return { reason: "spawn_failed", detail: "the daemon ended before it had started" };
  }
  return { reason: "lost", detail: "its VMM ended while no daemon ran" };
}

function requireReadable(findings: readonly WorkDirFinding[]): void {
  const damaged = findings.filter((finding) => finding.kind === "damaged");
  const [first] = damaged;
  if (first === undefined) return;
  const others = damaged.length === 1 ? "" : ` (and ${damaged.length - 1} more)`;
  throw new ForkdError("state_corrupt", `${first.error.message}${others}`, {
    hint: first.error.hint,
    cause: first.error,
  });
}

async function withinReason(work: Promise<unknown>): Promise<void> {
  const { promise: late, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, settleMs);
  await Promise.race([work, late]).finally(() => clearTimeout(timer));
}
