import { mkdir, readdir, rename } from "node:fs/promises";
import { basename, join } from "node:path";
import { ForkdError, toForkdError } from "@forkd/api";
import { identifyProcess, processesBelow, waitUntilGone } from "../../linux/proc.ts";
import { layout } from "../../store/layout.ts";
import { damagedHistory } from "../history.ts";
import { isAdoptable, type Orphan, orphanCause, undo } from "../recover.ts";
import { surveyWorkDirs, type WorkDirFinding } from "../survey.ts";
import { endProcessesIn } from "../work-dir.ts";
import type { Leak, LeakScope } from "./leak.ts";

const killTimeoutMs = 5_000;

/** Work directories that nobody looks after, and records that nobody can read. */
export async function findWorkDirs(scope: LeakScope): Promise<Leak[]> {
  const findings = await surveyWorkDirs(scope.paths);
  return findings.map((finding) => judge(scope, finding)).filter((leak) => leak !== undefined);
}

function judge(scope: LeakScope, finding: WorkDirFinding): Leak | undefined {
  const { dir } = finding;
  switch (finding.kind) {
    case "owned":
      return undefined;
    case "damaged":
      return {
        kind: "record",
        what: dir,
        why: finding.error.message,
        fix: () => moveAside(scope, dir),
      };
    case "foreign":
      return workDir(dir, "nobody ever claimed it", () => moveAside(scope, dir));
    case "leftover":
      return workDir(dir, "who made or removed it is gone", () =>
        remove(scope, { dir, record: undefined }),
      );
    case "orphan":
      return judgeOrphan(scope, finding);
  }
}

function judgeOrphan(scope: LeakScope, { dir, record }: Orphan): Leak | undefined {
  // The next daemon takes it over, or the one that is starting just now.
  if (record?.outlives === true && (scope.daemonLives || isAdoptable(record))) return undefined;
  const why = record === undefined ? "its owner is gone" : whyOrphaned(record);
  return workDir(dir, why, () => remove(scope, { dir, record }));
}

function whyOrphaned(record: NonNullable<Orphan["record"]>): string {
  return record.outlives ? (record.end ?? orphanCause(record)).detail : "its owner is gone";
}

function workDir(what: string, why: string, fix: () => Promise<string>): Leak {
  return { kind: "work_dir", what, why, fix };
}

async function remove(scope: LeakScope, orphan: Orphan): Promise<string> {
  await undo(scope, orphan);
  return "ended what ran in it and removed it";
}

/** What cannot be understood is kept, where it is in nobody's way. */
async function moveAside({ paths }: LeakScope, path: string): Promise<string> {
  await endProcessesIn(path);
  const dir = layout.quarantineDir(paths);
  await mkdir(dir, { recursive: true, mode: 0o700 });
  const kept = join(dir, `${Date.now()}-${basename(path)}`);
  await rename(path, kept);
  return `ended what ran in it and moved it to ${kept}`;
}

/** VMMs whose work directory is gone. */
export async function findProcesses(scope: LeakScope): Promise<Leak[]> {
  const { paths } = scope;
  const running = await processesBelow(paths.workDir);
  const names = await readdir(paths.workDir).catch(() => []);
  const known = new Set(names.map((name) => join(paths.workDir, name)));
  return [...running]
    .filter(([, cwd]) => !known.has(cwd))
    .map(([pid, cwd]) => ({
      kind: "process",
      what: `pid ${pid}`,
      why: `it runs in ${cwd}, which is not there`,
      fix: () => killProcess(scope, pid, cwd),
    }));
}

async function killProcess({ paths }: LeakScope, pid: number, cwd: string): Promise<string> {
  const identity = identifyProcess(pid);
  // Looked at again: the pid may be another process's by now.
  const running = await processesBelow(paths.workDir);
  if (identity === undefined || running.get(pid) !== cwd) return "it has ended";
  process.kill(pid, "SIGKILL");
  if (await waitUntilGone(identity, killTimeoutMs)) return "killed it";
  throw new ForkdError("deadline_exceeded", `process ${pid} does not end`);
}

/** Ended sandboxes whose file cannot be read. */
export async function findHistory(scope: LeakScope): Promise<Leak[]> {
  const damaged = await damagedHistory(layout.endedDir(scope.paths));
  return [...damaged].map(([path, error]) => ({
    kind: "record",
    what: path,
    why: toForkdError(error).message,
    fix: () => moveAside(scope, path),
  }));
}
