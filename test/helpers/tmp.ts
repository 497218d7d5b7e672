import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

export interface TmpDir extends AsyncDisposable {
  readonly path: string;
}

/** A fresh directory that goes when its scope ends: `await using dir = await makeTmpDir("x")`. */
export async function makeTmpDir(name: string): Promise<TmpDir> {
  const path = await mkdtemp(join(tmpdir(), `forkd-test-${name}-`));
  return {
    path,
    // A program that is being ended may write there until it is gone.
    [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true, maxRetries: 5 }),
  };
}
