import type { Stats } from "node:fs";
import { constants, type FileHandle, mkdir, open, readFile, stat } from "node:fs/promises";
import { dirname } from "node:path";
import { isErrno } from "../lib/atomic.ts";
import { type ChainHead, chainStart, headOf, linkEntry, parseHead } from "./audit-chain.ts";
import { lockFile } from "./audit-lock.ts";

/** No entry is longer: every text in one is bounded. */
const tailBytes = 256 * 1024;

/** Beside the log: the head of its chain, for a new file and for a last line that was cut off. */
export function headFile(path: string): string {
  return `${path}.head`;
}

/**
 * The file that has an audit log's name, and where its chain has got to. Before each write it looks
 * whether the name belongs to another file by now, after a rotation, and whether somebody else has
 * written. Use one at a time.
 */
export class AuditFile {
  readonly #path: string;
  #handle: FileHandle;
  #size = -1;
  #head: ChainHead = chainStart;

  private constructor(path: string, handle: FileHandle) {
    this.#path = path;
    this.#handle = handle;
  }

  /** Makes the directory (0700) and the file (0600) when they are missing. */
  static async open(path: string): Promise<AuditFile> {
    await mkdir(dirname(path), { recursive: true, mode: 0o700 });
    const file = new AuditFile(path, await openLog(path));
    await file.refresh();
    return file;
  }

  /** After the last entry that is known. */
  get head(): ChainHead {
    return this.#head;
  }

  /** Goes on in the file that has the name now. */
  async refresh(): Promise<void> {
    await using _lock = await this.#lock();
    await this.#follow();
  }

  /** All of them or, when it throws, none. */
  async append(entries: readonly object[]): Promise<void> {
    await using _lock = await this.#lock();
    await this.#follow();
    let head = this.#head;
    const lines = entries.map((entry) => {
      const linked = linkEntry(entry, head);
      head = linked.head;
      return `${linked.line}\n`;
    });
    await this.#write(Buffer.from(lines.join("")));
    this.#head = head;
    // The lines are there, and the last one has the head as well.
    if (this.#isChained) await keepHead(this.#path, head).catch(() => undefined);
  }

  async close(): Promise<void> {
    await this.#handle.close();
  }

  /** A device or a pipe keeps nothing that could be read again. */
  get #isChained(): boolean {
    return this.#size >= 0;
  }

  async #lock(): Promise<AsyncDisposable> {
    const isFile = (await this.#handle.stat()).isFile();
    return isFile
      ? await lockFile(`${this.#path}.lock`)
      : { [Symbol.asyncDispose]: async () => {} };
  }

  /** What a full disk took of the lines is taken back, so that the last line stays whole. */
  async #write(bytes: Buffer): Promise<void> {
    try {
      await this.#handle.appendFile(bytes);
      if (this.#isChained) this.#size += bytes.length;
    } catch (error) {
      if (this.#isChained) await this.#handle.truncate(this.#size).catch(() => undefined);
      throw error;
    }
  }

  async #follow(): Promise<void> {
    let own = await this.#handle.stat();
    if (!own.isFile()) return;
    const named = await stat(this.#path).catch(ignoreMissing);
    if (named === undefined || !isSame(named, own)) {
      const handle = await openLog(this.#path);
      await this.#handle.close();
      this.#handle = handle;
      this.#size = -1;
      own = await handle.stat();
    }
    if (own.size !== this.#size) await this.#findHead(own.size);
  }

  /** The last line's, or what is kept beside the log when that is further: lines were lost then. */
  async #findHead(size: number): Promise<void> {
    const length = Math.min(size, tailBytes);
    const { buffer } = await this.#handle.read(Buffer.alloc(length), 0, length, size - length);
    const text = buffer.toString("utf8");
    // A line that a crash has cut off stays, as a line of its own that is none of the chain.
    if (text !== "" && !text.endsWith("\n")) await this.#handle.appendFile("\n");
    const written = headOf(text.slice(0, text.lastIndexOf("\n") + 1).split("\n"));
    const kept = await readHead(this.#path);
    this.#head = [written, kept].reduce<ChainHead>(
      (best, head) => (head !== undefined && head.seq > best.seq ? head : best),
      chainStart,
    );
    this.#size = (await this.#handle.stat()).size;
  }
}

const seqDigits = 15;

/** In place and always of one length: no moment without it, no room needed on a full disk. */
async function keepHead(path: string, { seq, hash }: ChainHead): Promise<void> {
  const text = `${String(seq).padStart(seqDigits, "0")}:${hash}\n`;
  const overwrite = constants.O_WRONLY | constants.O_CREAT;
  await using file = await open(headFile(path), overwrite, 0o600);
  await file.write(text, 0);
}

/** Undefined when there is none, or nothing that can be understood. */
export async function readHead(path: string): Promise<ChainHead | undefined> {
  const text = await readFile(headFile(path), "utf8").catch(ignoreMissing);
  return text === undefined ? undefined : parseHead(text);
}

function openLog(path: string): Promise<FileHandle> {
  return open(path, "a+", 0o600);
}

function isSame(a: Stats, b: Stats): boolean {
  return a.dev === b.dev && a.ino === b.ino;
}

function ignoreMissing(error: unknown): undefined {
  if (isErrno(error, "ENOENT")) return undefined;
  throw error;
}
