import { type FSWatcher, watch } from "node:fs";
import { constants, type FileHandle, open } from "node:fs/promises";
import { join } from "node:path";
import { StringDecoder } from "node:string_decoder";
import { limits } from "@forkd/api";
import { printableLog, vmmLogFile } from "./vmm-log.ts";

/** How a live sandbox's log is followed. */
export interface LogWatch {
  readonly workDir: string;
  /** Bytes of the log that were told already. */
  readonly from: number;
  /** Resolves when the sandbox has ended, and its work directory is gone. */
  readonly ended: Promise<unknown>;
  /** Ends the following. */
  readonly signal: AbortSignal;
  /** An empty text comes when nothing was printed for so long. */
  readonly silenceMs: number;
}

/**
 * What a VMM prints from now on, in pieces of at most limits.logBytesMax, until its sandbox has
 * ended. The kernel tells of changes; a reader that is slow finds all of it in the file.
 */
export async function* followLog(options: LogWatch): AsyncGenerator<string, void> {
  const news = new News(options);
  try {
    await using file = await openLog(options.workDir);
    const decoder = new StringDecoder("utf8");
    const block = Buffer.alloc(limits.logBytesMax);
    let at = options.from;
    while (!options.signal.aborted) {
      // Looked at before the file is read: what came before the end is in it.
      const isLast = news.isOver;
      const { bytesRead } = (await file?.read(block, 0, block.length, at)) ?? { bytesRead: 0 };
      at += bytesRead;
      if (bytesRead > 0) yield printableLog(decoder.write(block.subarray(0, bytesRead)));
      else if (isLast) return;
      else if (!(await news.wait(options.silenceMs))) yield "";
    }
  } finally {
    news.close();
  }
}

/** The file stays readable after its directory is gone. Undefined when there is none. */
async function openLog(workDir: string): Promise<FileHandle | undefined> {
  try {
    const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK } = constants;
    return await open(join(workDir, vmmLogFile), O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  } catch {
    return undefined;
  }
}

/** Whether something may have been printed, or everything is over. */
class News {
  isOver = false;
  #isFresh = true;
  #wake: (() => void) | undefined;
  readonly #watcher: FSWatcher | undefined;

  constructor({ workDir, ended, signal }: LogWatch) {
    this.#watcher = watchFile(join(workDir, vmmLogFile), () => this.#ring());
    const onOver = (): void => {
      this.isOver = true;
      this.#ring();
    };
    ended.then(onOver, onOver);
    signal.addEventListener("abort", onOver, { once: true });
  }

  /** False when nothing came in `ms`. */
  async wait(ms: number): Promise<boolean> {
    if (!this.#isFresh) {
      const { promise, resolve } = Promise.withResolvers<void>();
      const timer = setTimeout(resolve, ms);
      this.#wake = resolve;
      await promise;
      clearTimeout(timer);
    }
    const wasFresh = this.#isFresh;
    this.#isFresh = false;
    return wasFresh;
  }

  close(): void {
    this.#watcher?.close();
  }

  #ring(): void {
    this.#isFresh = true;
    this.#wake?.();
  }
}

/** Undefined where there is nothing to watch: its sandbox has ended meanwhile. */
function watchFile(path: string, onChange: () => void): FSWatcher | undefined {
  try {
    const watcher = watch(path, { persistent: false }, onChange);
    // It is removed with its directory; the end of the sandbox tells.
    watcher.on("error", onChange);
    return watcher;
  } catch {
    return undefined;
  }
}
