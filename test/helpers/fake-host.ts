import assert from "node:assert/strict";
import { chmod, mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { parseSnapshotTag } from "@forkd/api";
import { resolveDataPaths } from "@forkd/host/config/data-paths.ts";
import { identifyProcess } from "@forkd/host/linux/proc.ts";
import { layout } from "@forkd/host/store/layout.ts";
import { SnapshotStore } from "@forkd/host/store/snapshots.ts";
import { repoRoot } from "./baked.ts";
import { publishSample } from "./sample-manifest.ts";
import { makeTmpDir } from "./tmp.ts";

/** A data directory with one small snapshot, and a directory with a program in QEMU's place. */
export interface FakeHost extends AsyncDisposable {
  readonly dataDir: string;
  readonly tag: string;
  /** To be first on the daemon's PATH. */
  readonly programs: string;
  /** The VMs that start next, in any order, do these; all others are honest. */
  plan(misdeeds: readonly string[]): Promise<void>;
  /** What a sandbox's VM does; empty for an honest one. */
  misdeedOf(id: string): Promise<string>;
}

/** A host whose VMs are played by fake-vmm.ts. */
export async function makeFakeHost(): Promise<FakeHost> {
  const tmp = await makeTmpDir("fake-host");
  const [dataDir, programs, plans] = ["data", "bin", "plans"].map((name) => join(tmp.path, name));
  assert.ok(dataDir !== undefined && programs !== undefined && plans !== undefined);
  for (const dir of [dataDir, programs, plans]) await mkdir(dir);
  const program = join(programs, "qemu-system-x86_64");
  const played = [
    join(repoRoot, "scripts/node"),
    join(repoRoot, "test/helpers/fake-vmm.ts"),
    plans,
  ];
  const words = [
    "#!/bin/sh",
    'if [ "$1" = --version ]; then echo "QEMU emulator version 7.2.0"; exit; fi',
    `exec ${played.join(" ")} "$@"`,
  ];
  await writeFile(program, `${words.join("\n")}\n`);
  await chmod(program, 0o755);
  const tag = await publish(dataDir);
  return {
    dataDir,
    tag,
    programs,
    plan: async (misdeeds) => {
      await Promise.all(
        misdeeds.map((misdeed, index) => writeFile(join(plans, String(index)), misdeed)),
      );
    },
    misdeedOf: (id) => readFile(join(dataDir, "work", id, "misdeed"), "utf8"),
    [Symbol.asyncDispose]: () => tmp[Symbol.asyncDispose](),
  };
}

async function publish(dataDir: string): Promise<string> {
  const paths = resolveDataPaths({ FORKD_DATA_DIR: dataDir }, 0);
  const store = new SnapshotStore(paths, identifyProcess(process.pid) ?? assert.fail());
  await mkdir(paths.rootfsDir);
  await writeFile(layout.rootImage(paths, "c".repeat(64)), "root", { mode: 0o400 });
  const tag = parseSnapshotTag("played");
  const reservation = await store.reserve(tag, { replace: false });
  try {
    await publishSample(reservation);
  } finally {
    await reservation.release();
  }
  return tag;
}
