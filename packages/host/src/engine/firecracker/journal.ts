import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { ForkdError } from "@forkd/api";
import { z } from "zod";
import { replaceFile } from "../../lib/atomic.ts";
import { type EpochEvent, type EpochState, epochStates, nextEpoch } from "./epoch.ts";

const journalFile = "firecracker.json";

const noteSchema = z.strictObject({
  format: z.literal(1),
  /** Relative to the work directory: `.`, or the root of the jail. */
  dir: z.string().regex(/^(\.|jail\/[\w.-]{1,64}\/[\w-]{1,64}\/root)$/),
  /** Whom a jailed VMM runs as; null without a jail. */
  user: z.strictObject({ uid: z.int().min(1), gid: z.int().min(1) }).nullable(),
  memory_mib: z.int().min(1),
  epoch: z.enum(epochStates),
});

/** What a later owner has to know of a VM, and the saved state does not say. */
export type VmNote = Readonly<z.infer<typeof noteSchema>>;

/** The note of one VM in its work directory. It is ahead of what it describes. */
export class VmJournal {
  readonly #workDir: string;
  #note: VmNote;

  private constructor(workDir: string, note: VmNote) {
    this.#workDir = workDir;
    this.#note = note;
  }

  /** Before the VM is started, so one that is cut off half-way describes nothing. */
  static async create(workDir: string, note: Omit<VmNote, "format" | "epoch">): Promise<VmJournal> {
    const journal = new VmJournal(workDir, { ...note, format: 1, epoch: "image" });
    const text = JSON.stringify(journal.note);
    await writeFile(join(workDir, journalFile), text, { mode: 0o600, flag: "wx" });
    return journal;
  }

  /** Throws engine_failed when there is none that can be read. */
  static async open(workDir: string): Promise<VmJournal> {
    const path = join(workDir, journalFile);
    try {
      return new VmJournal(workDir, noteSchema.parse(JSON.parse(await readFile(path, "utf8"))));
    } catch (error) {
      throw new ForkdError("engine_failed", `${path} is missing or damaged`, { cause: error });
    }
  }

  get note(): VmNote {
    return this.#note;
  }

  get epoch(): EpochState {
    return this.#note.epoch;
  }

  /** What the VMM sees as its own directory, absolute. */
  get dir(): string {
    return join(this.#workDir, this.#note.dir);
  }

  /** Writes down that something happens to the record of written pages, before it does. */
  async apply(event: EpochEvent): Promise<void> {
    const epoch = nextEpoch(this.#note.epoch, event);
    if (epoch === this.#note.epoch) return;
    this.#note = { ...this.#note, epoch };
    await this.#write();
  }

  async #write(): Promise<void> {
    await replaceFile(join(this.#workDir, journalFile), JSON.stringify(this.#note));
  }
}
