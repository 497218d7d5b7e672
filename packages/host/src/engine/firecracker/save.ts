import { join } from "node:path";
import { type FirecrackerApi, FirecrackerRefusal } from "./api.ts";
import { canDiff } from "./epoch.ts";
import { moveOut, removeNames, requireSize, takeState, vmFiles } from "./files.ts";
import type { VmJournal } from "./journal.ts";

export interface SaveTarget {
  readonly api: FirecrackerApi;
  readonly journal: VmJournal;
  readonly timeoutMs: number;
}

/** Where the parts of a parent go when it is saved. */
export interface BootedFiles {
  readonly memoryFile: string;
  /** Its disk, and how large it is; null: it has none. */
  readonly scratch: { readonly file: string; readonly bytes: number } | null;
}

/**
 * Saves a paused parent: its state, its RAM, which Firecracker holds in no file before, and its
 * disk. What Firecracker may still write to that was under way when the RAM was saved: each child
 * writes the same again.
 */
export async function saveBooted(
  target: SaveTarget,
  to: BootedFiles & { readonly path: string },
): Promise<void> {
  await takeFull(target);
  const { dir, note } = target.journal;
  await moveOut(join(dir, vmFiles.full), to.memoryFile, note.memory_mib * 1024 * 1024);
  if (to.scratch !== null) {
    await moveOut(join(dir, vmFiles.scratch), to.scratch.file, to.scratch.bytes);
  }
  await takeState(join(dir, vmFiles.saved), to.path);
  await removeNames(dir, [vmFiles.saved]);
}

/** Saves the state of a paused child; what it changed in its RAM stays known. */
export async function saveRestored(target: SaveTarget, path: string): Promise<void> {
  if (canDiff(target.journal.epoch)) await takeDiff(target);
  else await takeFull(target);
  const { dir } = target.journal;
  await takeState(join(dir, vmFiles.saved), path);
  await removeNames(dir, [vmFiles.saved, vmFiles.full]);
}

/** All of a paused VM, in `full` and `saved`. Firecracker's record of written pages is lost by it. */
export async function takeFull({ api, journal, timeoutMs }: SaveTarget): Promise<void> {
  await removeNames(journal.dir, [vmFiles.full, vmFiles.saved]);
  await journal.apply("full_taken");
  const body = {
    snapshot_type: "Full",
    snapshot_path: vmFiles.saved,
    mem_file_path: vmFiles.full,
  } as const;
  await api.call("createSnapshot", body, { timeoutMs });
}

/** No VMM has a directory of that name. */
const nowhere = "nowhere";

/**
 * Has Firecracker tell a paused guest that its connections are reset, as each snapshot does: what
 * 1.16.1 resumes, snapshot or not, gets nothing by vsock until it has taken note of that. The
 * state is taken for files that cannot be made: neither the RAM nor its record is looked at.
 */
export async function sendReset({ api, journal, timeoutMs }: SaveTarget): Promise<void> {
  const body = {
    snapshot_type: "Diff",
    snapshot_path: `${nowhere}/${vmFiles.saved}`,
    mem_file_path: `${nowhere}/${vmFiles.full}`,
  } as const;
  try {
    await api.call("createSnapshot", body, { timeoutMs });
  } catch (error) {
    if (error instanceof FirecrackerRefusal) return;
    throw error;
  }
  // Whoever made that directory, the record is gone.
  await journal.apply("full_taken");
}

/**
 * What a paused child changed since the last time, written over its pages of changes. Firecracker
 * writes a diff into a file of the right size as it is, and truncates any other.
 */
export async function takeDiff({ api, journal, timeoutMs }: SaveTarget): Promise<void> {
  await removeNames(journal.dir, [vmFiles.saved]);
  if (journal.epoch === "image") await removeNames(journal.dir, [vmFiles.pages]);
  else {
    const bytes = journal.note.memory_mib * 1024 * 1024;
    await requireSize(join(journal.dir, vmFiles.pages), bytes);
  }
  const body = {
    snapshot_type: "Diff",
    snapshot_path: vmFiles.saved,
    mem_file_path: vmFiles.pages,
  } as const;
  try {
    await journal.apply("diff_begun");
    await api.call("createSnapshot", body, { timeoutMs });
  } catch (error) {
    await journal.apply("diff_failed");
    throw error;
  }
  await journal.apply("diff_done");
}
