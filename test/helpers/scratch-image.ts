import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";

/** Puts the layers of a disk, oldest first, together into one raw file, by QEMU's own program. */
export function flattenDisk(layers: readonly string[], to: string): void {
  const options = layers.reduce<object | null>((below, file, place) => {
    const driver = place === 0 ? "raw" : "qcow2";
    return {
      driver,
      file: { driver: "file", filename: file },
      ...(below === null ? {} : { backing: below }),
    };
  }, null);
  execFileSync("qemu-img", ["convert", "-O", "raw", `json:${JSON.stringify(options)}`, to]);
}

/** Replays the journal, as the next mount would, and requires that nothing else is to be done. */
export function requireCleanExt4(image: string): void {
  const replayed = e2fsck("-y", "-E", "journal_only", image);
  assert.ok(replayed.status === 0 || replayed.status === 1, replayed.output);
  const checked = e2fsck("-f", "-n", image);
  assert.equal(checked.status, 0, checked.output);
}

function e2fsck(...args: readonly string[]): { status: number | null; output: string } {
  const { status, stdout, stderr } = spawnSync("e2fsck", args, { encoding: "utf8" });
  return { status, output: `${stdout}${stderr}` };
}

/** A file inside an ext4 image. */
export function readExt4File(image: string, path: string, bytesMax: number): Buffer {
  return execFileSync("debugfs", ["-R", `cat ${path}`, image], {
    maxBuffer: bytesMax,
    stdio: ["ignore", "pipe", "ignore"],
  });
}
