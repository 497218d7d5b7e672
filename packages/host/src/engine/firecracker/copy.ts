import { chmod, type FileHandle } from "node:fs/promises";
import { run } from "../../lib/exec.ts";
import { nativeTool } from "../../lib/native.ts";

/** A whole disk or RAM to slow storage; a restore and a pause have nearer bounds of their own. */
const copyTimeoutMs = 300_000;

export interface CopyOptions {
  readonly signal?: AbortSignal | undefined;
}

/**
 * Copies an open file into a new one of ours: shares the blocks where the file system can, and
 * keeps holes where it cannot. It may be written meanwhile. Whoever copies dies with us: it would
 * fill a file that is nobody's.
 *
 * Throws disk_full, tool_failed, deadline_exceeded, the signal's reason; `to` may be there then.
 */
export async function copyOpened(
  source: FileHandle,
  to: string,
  { signal }: CopyOptions = {},
): Promise<void> {
  const opened = `/proc/${process.pid}/fd/${source.fd}`;
  const bound = [nativeTool("forkd-launch"), "--die-with-parent", String(process.pid), "--"];
  const copy = ["cp", "--reflink=auto", "--sparse=auto", "--", opened, to];
  await run([...bound, ...copy], { timeoutMs: copyTimeoutMs, ...(signal && { signal }) });
  await chmod(to, 0o600);
}
