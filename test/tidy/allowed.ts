/**
 * The exceptions to the tidy rules. Each names a file and says why; a test fails when an entry is
 * no longer needed.
 */
export type Exceptions = Readonly<Record<string, string>>;

/** Files over 400 lines. */
export const longFiles: Exceptions = {};

/** Files that start programs by themselves. */
export const processStarters: Exceptions = {
  "packages/host/src/lib/exec.ts": "runs a program to its end, with a deadline",
  "packages/host/src/engine/process.ts": "supervises a VM that outlives the daemon",
  "bench/daemon.ts": "the harness is no part of the product",
  "test/runner/child.ts": "the test runner is no part of the product",
};

/** Files that remove directories with all that is in them. */
export const treeRemovers: Exceptions = {
  "test/helpers/tmp.ts": "removes the directory that it made",
};
