/** What the host lacks: programs, space. */
import assert from "node:assert/strict";
import { mkdir, readdir, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { ForkdError } from "@forkd/api";
import { resolveDataPaths } from "@forkd/host/config/data-paths.ts";
import { buildRootImage } from "@forkd/host/image/build.ts";
import { run } from "@forkd/host/lib/exec.ts";
import { rootfsStagingDir } from "@forkd/host/store/rootfs.ts";
import { missing } from "../../helpers/capabilities.ts";
import { makeTmpDir } from "../../helpers/tmp.ts";

const skip = missing({ root: true, programs: ["mkfs.ext4", "mount"] });

function build(dataDir: string, ref: string) {
  const paths = resolveDataPaths({ FORKD_DATA_DIR: dataDir }, 0);
  return buildRootImage({ ref, extra: [], sizeMib: null, paths, progress: () => undefined });
}

test("a program that is not installed comes with the command that installs it", async () => {
  await using dir = await makeTmpDir("tools");
  await symlink("/usr/bin/env", join(dir.path, "env"));
  const path = process.env["PATH"];
  process.env["PATH"] = dir.path;
  try {
    await assert.rejects(build(dir.path, "127.0.0.1:1/a:b"), (error: unknown) => {
      assert.ok(error instanceof ForkdError);
      assert.equal(error.code, "tool_missing");
      assert.match(error.hint, /apt-get install skopeo/);
      return true;
    });
  } finally {
    process.env["PATH"] = path;
  }
});

test("a file system that fills up is disk_full and leaves nothing", { skip }, async (t) => {
  await using dir = await makeTmpDir("full");
  const data = join(dir.path, "data");
  const source = join(dir.path, "source");
  await mkdir(data);
  await mkdir(source);
  await writeFile(join(source, "big"), Buffer.alloc(330 * 1024 * 1024, 1));
  const mounted = await run(["mount", "-t", "tmpfs", "-o", "size=320m", "none", data]).then(
    () => true,
    () => false,
  );
  if (!mounted) return t.skip("needs the right to mount a tmpfs");
  try {
    await assert.rejects(build(data, `dir:${source}`), { code: "disk_full" });
    const paths = resolveDataPaths({ FORKD_DATA_DIR: data }, 0);
    assert.deepEqual(await readdir(rootfsStagingDir(paths)), []);
    assert.deepEqual(await readdir(paths.rootfsDir), [".staging"]);
  } finally {
    await run(["umount", data]);
  }
});

test("hardly any space is disk_full at once", { skip }, async (t) => {
  await using dir = await makeTmpDir("low");
  const data = join(dir.path, "data");
  const source = join(dir.path, "source");
  await mkdir(data);
  await mkdir(source);
  await writeFile(join(source, "small"), "x");
  const mounted = await run(["mount", "-t", "tmpfs", "-o", "size=16m", "none", data]).then(
    () => true,
    () => false,
  );
  if (!mounted) return t.skip("needs the right to mount a tmpfs");
  try {
    await assert.rejects(build(data, `dir:${source}`), { code: "disk_full" });
  } finally {
    await run(["umount", data]);
  }
});
