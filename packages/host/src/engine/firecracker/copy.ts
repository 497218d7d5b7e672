import { chmod, type FileHandle } from "node:fs/promises";
import { orAborted } from "../../lib/deadline.ts";
import { run } from "../../lib/exec.ts";
import { nativeTool } from "../../lib/native.ts";

/** A whole disk or RAM to slow storage; a restore and a pause have nearer bounds of their own. */
const workTimeoutMs = 300_000;

export interface CopyOptions {
  readonly signal?: AbortSignal | undefined;
}

/**
 * Copies an open file into a new one of ours: shares the blocks where the file system can, and
 * keeps holes where it cannot. It may be written meanwhile.
 *
 * Throws disk_full, tool_failed, deadline_exceeded, the signal's reason; `to` may be there then.
 */
export async function copyOpened(
  source: FileHandle,
  to: string,
  options: CopyOptions = {},
): Promise<void> {
  const argv = ["cp", "--reflink=auto", "--sparse=auto", "--", openedPath(source), to];
  await runForUs(argv, options);
  await chmod(to, 0o600);
}

/**
 * Writes what the host's cache has of an open file to its disk, and closes it. In a process, since
 * it may take minutes: Node has four threads for all that we do with files.
 *
 * Throws tool_failed, deadline_exceeded, or the signal's reason: a sync that has begun goes on
 * then, no kill ends it.
 */
export async function syncOpened(source: FileHandle, options: CopyOptions): Promise<void> {
  const argv = ["sync", "--data", "--", openedPath(source)];
  const synced = runForUs(argv, options).finally(() => source.close());
  await orAborted(synced, options.signal);
}

/** By which a program that we run opens the very file. */
function openedPath({ fd }: FileHandle): string {
  return `/proc/${process.pid}/fd/${fd}`;
}

/** The program dies with us: it would fill a file that is nobody's. */
async function runForUs(argv: readonly string[], { signal }: CopyOptions): Promise<void> {
  const bound = [nativeTool("forkd-launch"), "--die-with-parent", String(process.pid), "--"];
  await run([...bound, ...argv], { timeoutMs: workTimeoutMs, ...(signal && { signal }) });
}
