import assert from "node:assert/strict";
import { join } from "node:path";
import type {
  ChildScratch,
  DiskCapture,
  DiskLayer,
  ScratchKind,
  Vm,
} from "@forkd/host/engine/engine.ts";
import { childScratch } from "@forkd/host/fork/scratch.ts";
import { tagOf } from "../helpers/packs.ts";

/** How a test has a guest write a word of letters to its disk, and read it from there again. */
export interface DiskWords {
  readonly write: (word: string) => string;
  readonly read: string;
}

/** A Python in a Linux whose files are on the disk: what is read has been dropped from its memory. */
export const linuxDisk: DiskWords = {
  write: (word) => `
import os
with open("/root/word", "w") as f:
    f.write("${word}")
    f.flush()
    os.fsync(f.fileno())
`,
  read: `(open("/proc/sys/vm/drop_caches", "w").write("3"), open("/root/word").read())[1]`,
};

/** Frozen layers of a disk, oldest first. */
export interface FrozenDisk {
  readonly layers: readonly DiskLayer[];
  readonly sizeMib: number;
}

export function scratchOf(frozen: FrozenDisk, kind: ScratchKind, workDir: string): ChildScratch {
  const scratch = childScratch({ tag: tagOf("disk"), scratch: frozen }, { kind, workDir });
  return scratch ?? assert.fail();
}

/** What a capture is told of the disk of a child, and what its forks begin with then. */
export async function diskTurn(
  vm: Vm,
  from: FrozenDisk,
  workDir: string,
): Promise<{ readonly disks: readonly DiskCapture[]; readonly frozen: FrozenDisk }> {
  const bytes = from.sizeMib * 1024 * 1024;
  const { scratch } = vm;
  switch (scratch.kind) {
    case "file": {
      const file = join(workDir, "captured");
      const frozen = { ...from, layers: [{ file, format: "raw" as const }] };
      return { disks: [{ kind: "copy", to: file, bytes }], frozen };
    }
    case "layers": {
      const own = scratchOf(from, "layers", workDir);
      const under = await scratch.top();
      const file = join(workDir, "next.qcow2");
      const next = { file, format: "qcow2" as const, number: under + 1 };
      const pivot = await scratch.add(next, { under, bytes });
      const layers = own.kind === "layers" ? own.layers : assert.fail();
      return { disks: [pivot], frozen: { ...from, layers } };
    }
  }
}
