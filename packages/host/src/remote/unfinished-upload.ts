import { createHash } from "node:crypto";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { replaceFile } from "../lib/atomic.ts";
import { sweepPartials } from "./partials.ts";
import { readRecord } from "./record-file.ts";
import type { UploadFile } from "./remote.ts";

const recordSchema = z.object({
  format: z.literal(1),
  /** As the store named it: an upload that nobody has completed. */
  upload_id: z.string().min(1).max(4096),
  /** Of the file whose parts it has. */
  sha256: z.string().regex(/^[0-9a-f]{64}$/),
  size_bytes: z.int().min(1),
  part_bytes: z.int().min(1),
});

/** What an upload is an upload of: with another of these its parts are of no use. */
export interface UploadShape extends Pick<UploadFile, "sha256" | "sizeBytes"> {
  readonly partBytes: number;
}

export interface KnownUpload {
  readonly id: string;
  /** Whether its parts are parts of the very file that is sent now. */
  readonly isSame: boolean;
}

/** Remembers an upload in parts from one run to the next, so that the next goes on with it. */
export class UnfinishedUpload {
  readonly #dir: string;
  readonly #file: string;

  /** `of` is what names the object for good; at most 8 are remembered in `dir`, for 7 days. */
  constructor(dir: string, of: string) {
    this.#dir = dir;
    this.#file = join(dir, `${createHash("sha256").update(of).digest("hex")}.json`);
  }

  async known(shape: UploadShape): Promise<KnownUpload | undefined> {
    const record = await readRecord(this.#file, recordSchema);
    if (record === undefined) return undefined;
    const isSame =
      record.sha256 === shape.sha256 &&
      record.size_bytes === shape.sizeBytes &&
      record.part_bytes === shape.partBytes;
    return { id: record.upload_id, isSame };
  }

  async remember(id: string, { sha256, sizeBytes, partBytes }: UploadShape): Promise<void> {
    await sweepPartials(this.#dir, Date.now());
    const facts = { upload_id: id, sha256, size_bytes: sizeBytes, part_bytes: partBytes };
    await replaceFile(this.#file, JSON.stringify({ format: 1, ...facts }));
  }

  async forget(): Promise<void> {
    // One that stays names an upload that is gone, which the next run finds out.
    await rm(this.#file, { force: true }).catch(() => undefined);
  }
}
