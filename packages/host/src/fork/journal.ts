import { join } from "node:path";
import { replaceFile } from "../lib/atomic.ts";
import { recordFile, renderRecord, type SandboxRecord } from "./record.ts";
import type { Resource } from "./resources.ts";
import type { OnStep } from "./steps.ts";

/**
 * One sandbox's record on disk, ahead of what it describes. VMs do not survive a crash of the host,
 * so it need only survive one of its owner: it is replaced, not synced.
 */
export class Journal {
  readonly workDir: string;
  readonly #onStep: OnStep;
  #record: SandboxRecord;
  #writing: Promise<void> = Promise.resolve();

  /** `record` is what the directory has in it already. */
  constructor(workDir: string, record: SandboxRecord, onStep: OnStep) {
    this.workDir = workDir;
    this.#record = record;
    this.#onStep = onStep;
  }

  /** What was last asked to be written. */
  get record(): SandboxRecord {
    return this.#record;
  }

  /** Changes fields of the record; resolves when they are on disk, in the order of the calls. */
  write(change: Partial<SandboxRecord>): Promise<void> {
    this.#record = { ...this.#record, ...change };
    const text = renderRecord(this.#record);
    const path = join(this.workDir, recordFile);
    const written = this.#writing.then(() => replaceFile(path, text));
    this.#writing = written.catch(() => undefined);
    return written;
  }

  /** Writes resources down, then takes them: whoever finds the record can give them back. */
  async take<T>(resources: readonly Resource[], acquire: () => Promise<T>): Promise<T> {
    await this.write({ resources: [...this.#record.resources, ...resources] });
    this.#onStep("resource_recorded");
    const taken = await acquire();
    this.#onStep("resource_taken");
    return taken;
  }
}
