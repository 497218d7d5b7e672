import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { statSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { createQcow2 } from "@forkd/host/engine/qemu/qcow2.ts";
import { layerNodes, scratchArgs } from "@forkd/host/engine/qemu/scratch.ts";
import { missing } from "../../helpers/capabilities.ts";
import { makeTmpDir } from "../../helpers/tmp.ts";

const mib = 1024 * 1024;
const skip = missing({ programs: ["qemu-img"] });

for (const size of [64 * mib, 512 * mib, 512 * mib + 512, 65_536 * mib, 2 ** 42]) {
  test(`QEMU's own checker finds an empty disk of ${size} bytes right`, { skip }, async () => {
    await using dir = await makeTmpDir("qcow2");
    const path = join(dir.path, "disk");
    await createQcow2(path, size);
    const info = JSON.parse(String(execFileSync("qemu-img", ["info", "--output=json", path])));
    assert.equal(info["virtual-size"], size);
    assert.equal(info.format, "qcow2");
    assert.equal(info["backing-filename"], undefined);
    const check = execFileSync("qemu-img", ["check", "--output=json", path]);
    const found = JSON.parse(String(check));
    assert.equal(found["check-errors"], 0);
    assert.equal(found.leaks ?? 0, 0);
    assert.equal(found.corruptions ?? 0, 0);
    assert.ok(statSync(path).blocks * 512 <= 16 * 1024);
  });
}

test("a disk of no size, of half a sector, or larger than its tables can say is refused", async () => {
  await using dir = await makeTmpDir("qcow2");
  for (const size of [0, -512, 511, 2 ** 42 + 512]) {
    await assert.rejects(createQcow2(join(dir.path, "disk"), size), { code: "internal" });
  }
});

test("a file that is there is not made into a disk", async () => {
  await using dir = await makeTmpDir("qcow2");
  await createQcow2(join(dir.path, "disk"), mib);
  await assert.rejects(createQcow2(join(dir.path, "disk"), mib), { code: "EEXIST" });
});

const nodesOf = (args: readonly string[]) =>
  args.flatMap((word, at) => (args[at - 1] === "-blockdev" ? [JSON.parse(word)] : []));

test("of a chain only the last layer can be written, and each stands on the one before", () => {
  const args = scratchArgs([
    { file: "/s/scratch.0", format: "raw" },
    { file: "/s/scratch.1,x", format: "qcow2" },
    { file: "/w/scratch.2.qcow2", format: "qcow2" },
  ]);
  const nodes = nodesOf(args);
  assert.deepEqual(
    nodes.map((node) => [node["node-name"], node["read-only"], node.file ?? node.filename]),
    [
      ["scratch-0-file", true, "/s/scratch.0"],
      ["scratch-0", true, "scratch-0-file"],
      ["scratch-1-file", true, "/s/scratch.1,x"],
      ["scratch-1", true, "scratch-1-file"],
      ["scratch-2-file", false, "/w/scratch.2.qcow2"],
      ["scratch-2", false, "scratch-2-file"],
    ],
  );
  const backing = nodes.filter((node) => "backing" in node).map((node) => node.backing);
  assert.deepEqual(backing, ["scratch-0", "scratch-1"]);
  assert.ok(nodes.every((node) => node.driver !== "file" || node.locking === "on"));
  assert.match(args.at(-1) ?? "", /^virtio-blk-device,.*drive=scratch-2$/);
});

test("a guest without a scratch disk has no device for one", () => {
  assert.deepEqual(scratchArgs([]), []);
});

test("no layer trusts its image to say what lies below it", () => {
  const layer = { file: "/w/disk", format: "qcow2" } as const;
  const [, format] = layerNodes(layer, { index: 0, write: true });
  assert.deepEqual({ ...format }, { ...format, backing: null });
});
