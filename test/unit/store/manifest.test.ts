import assert from "node:assert/strict";
import { test } from "node:test";
import { parseManifest } from "@forkd/host/store/manifest.ts";
import fc from "fast-check";
import { sampleManifest } from "../../helpers/sample-manifest.ts";

const disk = { format: "raw", size: 64 * 1024 * 1024 };

test("a manifest survives being written and read", () => {
  const manifest = sampleManifest("t");
  assert.deepEqual(parseManifest(JSON.stringify(manifest), "p"), manifest);
});

test("a disk of several layers is one if its first is raw and of its size", () => {
  const scratch = { size_mib: 64, layers: [disk, { format: "qcow2", size: 12_288 }] };
  const manifest = { ...sampleManifest("t"), scratch };
  assert.deepEqual(parseManifest(JSON.stringify(manifest), "p").scratch, scratch);
});

const broken: readonly (readonly [string, object])[] = [
  ["another format", { format: "x" }],
  ["a newer version", { version: 3 }],
  ["a tag that leaves the directory", { tag: "../x" }],
  ["a root image that is no hash", { rootfs: { sha256: "../../etc/passwd", ref: "" } }],
  ["an attach token of another length", { agent: { attach_token: "00" } }],
  [
    "an empty state file",
    { files: { vmstate: { size: 0 }, memory: { size: 1, physical_bytes: 0 } } },
  ],
];
const brokenDisks: readonly (readonly [string, object])[] = [
  ["a disk of another size than its file", { size_mib: 65, layers: [disk] }],
  ["a disk that is no raw file", { size_mib: 64, layers: [{ ...disk, format: "qcow2" }] }],
  ["a disk larger than any may be", { size_mib: 2 ** 20, layers: [{ ...disk, size: 2 ** 40 }] }],
];
for (const [what, change] of [
  ...broken,
  ...brokenDisks.map(([of, scratch]) => [of, { scratch }] as const),
]) {
  test(`refused: ${what}`, () => {
    const text = JSON.stringify({ ...sampleManifest("t"), ...change });
    assert.throws(() => parseManifest(text, "/dir/snapshot.json"), {
      code: "snapshot_incomplete",
      message: /^\/dir\/snapshot.json/,
    });
  });
}

test("a manifest of version 1 is a base of which only sizes are known", () => {
  const { parent: _, branch: __, scratch: ___, ...old } = sampleManifest("t");
  const files = { vmstate: { size: 4 }, memory: { size: 4096, physical_bytes: 512 } };
  const manifest = parseManifest(JSON.stringify({ ...old, version: 1, files }), "p");
  assert.equal(manifest.parent, null);
  assert.equal(manifest.files.index, null);
  assert.equal(manifest.files.vmstate.sha256, null);
});

test("any text gives a manifest or snapshot_incomplete", () => {
  fc.assert(
    fc.property(fc.oneof(fc.string(), fc.json()), (text) => {
      assert.throws(() => parseManifest(text, "p"), { code: "snapshot_incomplete" });
    }),
  );
});
