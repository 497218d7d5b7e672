import assert from "node:assert/strict";
import { truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { limits, parseSnapshotTag } from "@forkd/api";
import type { DiskLayer } from "@forkd/host/engine/engine.ts";
import { childScratch, describeLayers, recordedLayers } from "@forkd/host/fork/scratch.ts";
import { makeTmpDir } from "../../helpers/tmp.ts";

const tag = parseSnapshotTag("warm");
const workDir = "/w/sb-1";
const raw: DiskLayer = { file: "/s/warm/scratch.0", format: "raw" };
const qcow2: DiskLayer = { file: "/s/warm/scratch.1", format: "qcow2" };
const snapshot = (...layers: readonly DiskLayer[]) => ({ tag, scratch: { sizeMib: 64, layers } });

test("a child of layers writes to one more, which its record names", () => {
  const scratch = childScratch(snapshot(raw, qcow2), { kind: "layers", workDir });
  const own = { file: "/w/sb-1/scratch.2.qcow2", format: "qcow2" };
  assert.deepEqual(scratch, { kind: "layers", layers: [raw, qcow2, own] });
  const numbered = [raw, qcow2, own].map((layer, number) => ({ ...layer, number }));
  assert.deepEqual(recordedLayers(scratch), numbered);
});

test("a child of a file begins with that, and its record names none", () => {
  const scratch = childScratch(snapshot(raw), { kind: "file", workDir });
  assert.deepEqual(scratch, { kind: "file", frozen: raw.file });
  assert.deepEqual(recordedLayers(scratch), []);
});

test("a snapshot without a disk has none under any engine", () => {
  for (const kind of ["layers", "file"] as const) {
    assert.equal(childScratch({ tag, scratch: null }, { kind, workDir }), null);
  }
  assert.deepEqual(recordedLayers(null), []);
});

test("no engine of files is given layers, whatever the snapshot says that it is of", () => {
  for (const layers of [[raw, qcow2], [qcow2], []]) {
    const made = () => childScratch(snapshot(...layers), { kind: "file", workDir });
    assert.throws(made, { code: "snapshot_incompatible", hint: /forkd rmi warm/ });
  }
});

test("a disk that a VMM left in another size is not described", async () => {
  await using dir = await makeTmpDir("scratch");
  await writeFile(join(dir.path, "scratch.0"), "");
  await truncate(join(dir.path, "scratch.0"), 64 * 1024 * 1024);
  const described = (sizeMib: number | null) =>
    describeLayers({ dir: dir.path, layers: [raw], sizeMib });
  const layers = [{ format: "raw", size: 64 * 1024 * 1024 }];
  assert.deepEqual(await described(64), { size_mib: 64, layers });
  assert.equal(await described(null), null);
  await assert.rejects(described(65), { code: "engine_failed" });
});

test("more layers than there may be are refused", () => {
  const layers = [raw, ...Array.from({ length: limits.scratchLayersMax }, () => qcow2)];
  const made = () => childScratch(snapshot(...layers), { kind: "layers", workDir });
  assert.throws(made, { code: "chain_too_long" });
});
