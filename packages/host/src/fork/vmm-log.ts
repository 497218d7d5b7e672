import { constants, type FileHandle, open } from "node:fs/promises";
import { join } from "node:path";
import { limits } from "@forkd/api";

/** What a VMM and its launcher print, in their work directory. */
export const vmmLogFile = "vmm.log";
/** All but tabs and line feeds: a VMM's words are printed to terminals, and it may be hostile. */
const controls = /[^\P{Cc}\t\n]/gu;

/**
 * The end of a VMM's log, at most limits.logBytesMax of it and in whole lines: a longer line is cut
 * at its begin. Undefined when there is none, or what is there is no file.
 */
export async function readVmmLog(workDir: string): Promise<string | undefined> {
  return (await readVmmLogEnd(workDir))?.text;
}

/** The same, with where in the file it ends. */
export async function readVmmLogEnd(
  workDir: string,
): Promise<{ readonly text: string; readonly sizeBytes: number } | undefined> {
  let handle: FileHandle;
  try {
    // A VMM that was taken over may have put a link or a pipe there.
    const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK } = constants;
    handle = await open(join(workDir, vmmLogFile), O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  } catch {
    return undefined;
  }
  await using file = handle;
  const stat = await file.stat();
  if (!stat.isFile()) return undefined;
  const from = Math.max(0, stat.size - limits.logBytesMax);
  const tail = Buffer.alloc(limits.logBytesMax);
  const { bytesRead } = await file.read(tail, 0, tail.length, from);
  const text = printableLog(tail.toString("utf8", 0, bytesRead));
  return { text: from === 0 ? text : wholeLines(text), sizeBytes: from + bytesRead };
}

/** A VMM's words, without what commands a terminal. */
export function printableLog(text: string): string {
  return text.replace(/\r\n/g, "\n").replace(controls, "\ufffd");
}

/** Without the line that the cut went through, unless that is all there is. */
function wholeLines(text: string): string {
  const end = text.indexOf("\n") + 1;
  return end === 0 || end === text.length ? text : text.slice(end);
}

/** The last `count` lines of a text. */
export function lastLines(text: string, count: number): string {
  const lines = text.split("\n");
  const isEnded = lines.at(-1) === "";
  return lines.slice(-(isEnded ? count + 1 : count)).join("\n");
}
