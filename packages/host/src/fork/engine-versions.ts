import { mkdir, readFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { EngineName } from "@forkd/api";
import { z } from "zod";
import { replaceFile } from "../lib/atomic.ts";
import { fileIdentity } from "../store/files.ts";

const recordBytesMax = 4096;

const recordSchema = z.object({
  format: z.literal(1),
  /** Which file said it: see fileIdentity. */
  identity: z.string().max(256),
  version: z.string().max(64),
});

export interface EngineVersionsOptions {
  readonly cacheDir: string;
  /** The program that tells an engine's version and nothing else does; undefined: ask each time. */
  readonly programOf: (name: EngineName) => Promise<string | undefined>;
}

/**
 * What the engines' programs said that they are, kept from one command line to the next: a list of
 * snapshots need not start a VMM that has not changed.
 */
export class EngineVersions {
  readonly #options: EngineVersionsOptions;

  constructor(options: EngineVersionsOptions) {
    this.#options = options;
  }

  /** Throws what `ask` throws; that is not kept. */
  async get(name: EngineName, ask: () => Promise<string>): Promise<string> {
    const program = await this.#options.programOf(name);
    const identity = program === undefined ? undefined : await fileIdentity(program);
    if (identity === undefined) return await ask();
    const path = join(this.#options.cacheDir, `version-${name}.json`);
    const known = await readRecord(path);
    if (known?.identity === identity) return known.version;
    const version = await ask();
    await keep(path, { format: 1, identity, version });
    return version;
  }
}

async function readRecord(path: string): Promise<z.infer<typeof recordSchema> | undefined> {
  try {
    const text = await readFile(path, "utf8");
    return text.length > recordBytesMax ? undefined : recordSchema.parse(JSON.parse(text));
  } catch {
    // Without a record that can be read the program is asked, which is always right.
    return undefined;
  }
}

/** Lists are for whoever may read the data directory, also when nothing can be kept there. */
async function keep(path: string, record: z.infer<typeof recordSchema>): Promise<void> {
  try {
    await mkdir(dirname(path), { recursive: true, mode: 0o700 });
    await replaceFile(path, JSON.stringify(record));
  } catch {
    // It is asked again the next time.
  }
}
