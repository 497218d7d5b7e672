import { type FileHandle, open } from "node:fs/promises";
import type { Readable } from "node:stream";
import { pageBytes } from "../store/extents.ts";
import { blockBytes, dataRuns } from "../store/page-io.ts";
import type { TarFile } from "./tar-format.ts";
import { invalid, type PackReader } from "./tar-read.ts";

/**
 * Writes a file of an archive to a new path: what is a hole there is one here, and so are pages of
 * zeros. `onBytes` is told of data as it comes.
 */
export async function writeSparse(
  reader: PackReader,
  file: TarFile,
  to: { readonly path: string; readonly onBytes: (bytes: number) => void },
): Promise<void> {
  await using handle = await open(to.path, "wx", 0o600);
  await handle.truncate(file.size);
  const writer = new BlockWriter(handle);
  await reader.data(file, async (piece, offset) => {
    await writer.write(piece, offset);
    to.onBytes(piece.length);
  });
  await writer.flush();
}

/**
 * Writes a stream to a new path, zeros as holes. Throws pack_invalid when it has not exactly
 * `bytes`; it is not read any further then.
 */
export async function writeSparseStream(
  stream: Readable,
  to: { readonly path: string; readonly bytes: number },
): Promise<void> {
  await using handle = await open(to.path, "wx", 0o600);
  await handle.truncate(to.bytes);
  const writer = new BlockWriter(handle);
  let offset = 0;
  for await (const piece of stream) {
    if (!Buffer.isBuffer(piece) || offset + piece.length > to.bytes) break;
    await writer.write(piece, offset);
    offset += piece.length;
  }
  await writer.flush();
  if (offset !== to.bytes) throw invalid(`it has not the ${to.bytes} bytes that were declared`);
}

/** Gathers pieces that follow each other into blocks, which are looked at page by page. */
class BlockWriter {
  readonly #handle: FileHandle;
  readonly #block = Buffer.allocUnsafe(blockBytes);
  #offset = 0;
  #filled = 0;

  constructor(handle: FileHandle) {
    this.#handle = handle;
  }

  async write(piece: Buffer, offset: number): Promise<void> {
    if (offset !== this.#offset + this.#filled) await this.flush();
    for (let done = 0; done < piece.length; ) {
      if (this.#filled === 0) this.#offset = offset + done;
      // Blocks end where pages do, so that pages are looked at as a whole.
      const room = blockBytes - (this.#offset % pageBytes) - this.#filled;
      const count = Math.min(room, piece.length - done);
      piece.copy(this.#block, this.#filled, done, done + count);
      this.#filled += count;
      done += count;
      if (count === room) await this.flush();
    }
  }

  async flush(): Promise<void> {
    const block = this.#block.subarray(0, this.#filled);
    this.#filled = 0;
    const isAligned = this.#offset % pageBytes === 0;
    const runs = isAligned ? dataRuns(block) : [{ offset: 0, length: block.length }];
    for (const { offset, length } of runs) {
      for (let done = 0; done < length; ) {
        const at = offset + done;
        const { bytesWritten } = await this.#handle.write(
          block,
          at,
          length - done,
          this.#offset + at,
        );
        done += bytesWritten;
      }
    }
    this.#offset += block.length;
  }
}
