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
  "packages/host/src/engine/broker.ts": "supervises the starter of VMMs",
  "packages/host/src/engine/own-vmm.ts": "supervises a parent that boots",
  "packages/host/src/engine/process.ts": "starts the helper that works beside a VMM",
  "bench/daemon.ts": "the harness is no part of the product",
  "bench/pack.ts": "the same, and it looks at what runs",
};

/** Files that remove directories with all that is in them. */
export const treeRemovers: Exceptions = {
  "bench/firecracker.ts": "the work directories of its own rounds",
  "bench/pack.ts": "the packs of its own rounds",
  "packages/host/src/engine/firecracker/probe.ts": "its own trial directory",
  "packages/host/src/engine/qemu/probe.ts": "its own trial directory",
  "packages/host/src/fork/work-dir.ts": "the work directory of an ended sandbox",
  "scripts/release.ts": "the directory that it builds in",
  "packages/host/src/store/staging-dirs.ts": "what the store itself made, by validated name",
};
