/** Images of files and directories on this host, honest and hostile ones. */
import assert from "node:assert/strict";
import { cp, mkdir, readdir, readFile, stat, symlink, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { gzipSync } from "node:zlib";
import { ForkdError } from "@forkd/api";
import { resolveDataPaths } from "@forkd/host/config/data-paths.ts";
import { buildRootImage } from "@forkd/host/image/build.ts";
import { run } from "@forkd/host/lib/exec.ts";
import {
  listRootImages,
  publishRootImage,
  rootfsStagingDir,
  verifyRootImage,
} from "@forkd/host/store/rootfs.ts";
import { missing } from "../../helpers/capabilities.ts";
import { listInImage, readInImage, statInImage, xattrInImage } from "../../helpers/ext4.ts";
import { makeOciImage } from "../../helpers/oci-fixture.ts";
import { writeTar } from "../../helpers/tar-writer.ts";
import { makeTmpDir, type TmpDir } from "../../helpers/tmp.ts";

const skip = missing({ root: true, programs: ["mkfs.ext4", "debugfs", "tar"] });
const skipOci = missing({ root: true, programs: ["mkfs.ext4", "debugfs", "skopeo", "umoci"] });

let dir: TmpDir;
before(async () => {
  dir = await makeTmpDir("sources");
});
after(() => dir[Symbol.asyncDispose]());

const paths = () => resolveDataPaths({ FORKD_DATA_DIR: join(dir.path, "data") }, 0);

interface Options {
  readonly sizeMib?: number;
  readonly signal?: AbortSignal;
  readonly progress?: (message: string) => void;
}

function build(ref: string, options: Options = {}) {
  return buildRootImage({
    ref,
    extra: [],
    sizeMib: null,
    paths: paths(),
    progress: () => undefined,
    cwd: dir.path,
    ...options,
  });
}

/** Runs a build that must fail, and checks that it left nothing. */
async function buildFails(ref: string, code: string, options: Options = {}): Promise<ForkdError> {
  const before = await readdir(paths().rootfsDir).catch(() => []);
  const error = await build(ref, options).then(
    () => assert.fail(`${ref} was built`),
    (thrown: unknown) => thrown,
  );
  assert.ok(error instanceof ForkdError, String(error));
  assert.equal(error.code, code, error.message);
  assert.deepEqual(await readdir(rootfsStagingDir(paths())).catch(() => []), []);
  const after = await readdir(paths().rootfsDir).catch(() => []);
  assert.deepEqual(
    after.filter((name) => name !== ".staging"),
    before.filter((name) => name !== ".staging"),
  );
  return error;
}

test("oci: and docker-archive: give what the layout holds", { skip: skipOci }, async () => {
  const layout = join(dir.path, "layout");
  const archive = join(dir.path, "app.tar");
  await makeOciImage(layout, "app");
  await run(["skopeo", "copy", "--quiet", `oci:${layout}:app`, `docker-archive:${archive}:app:1`]);
  const images = [await build(`oci:${layout}:app`), await build("docker-archive:app.tar")];
  for (const { path, config } of images) {
    assert.equal(await readInImage(path, "/etc/os-release"), "third\n");
    assert.deepEqual(await listInImage(path, "/opt/data"), ["new"]);
    assert.equal(config.workdir, "/home/u");
  }
  const missingTag = await buildFails(`oci:${layout}:none`, "image_not_found");
  assert.match(missingTag.message, /layout:none/);
});

test("a damaged layer is refused", { skip: skipOci }, async () => {
  const layout = join(dir.path, "damaged");
  await makeOciImage(layout, "app");
  const blobs = join(layout, "blobs/sha256");
  const sizes = await Promise.all(
    (await readdir(blobs)).map(async (name) => ({ name, head: await readFile(join(blobs, name)) })),
  );
  const layer = sizes.find(({ head }) => head[0] === 0x1f);
  assert.ok(layer !== undefined);
  const bytes = Buffer.from(layer.head);
  bytes.fill(0x5a, bytes.length / 2);
  await writeFile(join(blobs, layer.name), bytes);
  await buildFails(`oci:${layout}:app`, "image_invalid");
});

test("tar: keeps owners, links and attributes, compressed or not", { skip }, async () => {
  const members = [
    { name: "./", type: "dir" as const, mode: 0o755 },
    { name: "./bin/", type: "dir" as const },
    { name: "./bin/tool", mode: 0o4711, uid: 7, gid: 8, data: "x", xattrs: { "user.k": "v" } },
    { name: "./bin/same", type: "hardlink" as const, linkTo: "./bin/tool" },
  ];
  await writeFile(join(dir.path, "a.tar"), writeTar(members));
  await writeFile(join(dir.path, "a.tar.gz"), gzipSync(writeTar(members)));
  for (const ref of ["tar:a.tar", "tar:a.tar.gz"]) {
    const { path } = await build(ref);
    const tool = await statInImage(path, "/bin/tool");
    assert.deepEqual([tool?.uid, tool?.gid, tool?.mode, tool?.links], [7, 8, 0o4711, 2]);
    assert.equal(tool?.inode, (await statInImage(path, "/bin/same"))?.inode);
    assert.equal(await xattrInImage(path, "/bin/tool", "user.k"), "76");
  }
});

test("a tar without an entry for / still has a root that everybody may enter", {
  skip,
}, async () => {
  await writeFile(join(dir.path, "noroot.tar"), writeTar([{ name: "f", data: "x" }]));
  const { path } = await build("tar:noroot.tar");
  assert.equal((await statInImage(path, "/"))?.mode, 0o755);
});

/** A member that would land in `outside` if it were obeyed, and what must become of the build. */
const hostile = (outside: string) => [
  {
    name: "up",
    members: [{ name: "../../../../../../../../../../..".concat(outside), data: "x" }],
  },
  {
    name: "through",
    members: [
      { name: "d", type: "symlink" as const, linkTo: join(outside, "..") },
      { name: "d/escaped", data: "x" },
    ],
  },
  {
    name: "hardlink",
    members: [
      { name: "h", type: "hardlink" as const, linkTo: "../../../../../../../../../etc/passwd" },
    ],
  },
];

test("tar members cannot land outside or read outside", { skip }, async () => {
  const outside = join(dir.path, "outside", "escaped");
  await mkdir(join(dir.path, "outside"));
  for (const { name, members } of hostile(outside)) {
    await writeFile(join(dir.path, `${name}.tar`), writeTar(members));
    await buildFails(`tar:${name}.tar`, "image_invalid");
    assert.deepEqual(await readdir(join(dir.path, "outside")), [], name);
  }
});

test("absolute tar members land inside", { skip }, async () => {
  const target = join(dir.path, "absolute-target");
  await writeFile(join(dir.path, "abs.tar"), writeTar([{ name: target, data: "inside\n" }]));
  const { path } = await build("tar:abs.tar");
  assert.equal(await readInImage(path, target), "inside\n");
  await assert.rejects(stat(target));
});

test("dir: copies a directory, leaves it alone and notices changes", { skip }, async () => {
  const source = join(dir.path, "source");
  await mkdir(join(source, "etc"), { recursive: true });
  await writeFile(join(source, "etc/name"), "one\n");
  await symlink("/etc/name", join(source, "link"));
  const first = await build("dir:source");
  assert.equal(await readInImage(first.path, "/etc/name"), "one\n");
  assert.deepEqual(await readdir(source), ["etc", "link"]);
  assert.equal((await build("dir:source")).sha256, first.sha256);
  await writeFile(join(source, "etc/name"), "two\n");
  const times = new Date(1_600_000_000_000);
  await utimes(join(source, "etc/name"), times, times);
  const second = await build("dir:source");
  assert.equal(await readInImage(second.path, "/etc/name"), "two\n");
});

test("a directory that holds the data directory is refused", { skip }, async () => {
  const error = await buildFails(`dir:${dir.path}`, "image_invalid");
  assert.match(error.message, /data directory/);
  await symlink(dir.path, join(dir.path, "around"));
  await buildFails("dir:around", "image_invalid");
});

test("a mount point that is a file is refused", { skip }, async () => {
  await writeFile(join(dir.path, "proc.tar"), writeTar([{ name: "proc", data: "x" }]));
  const error = await buildFails("tar:proc.tar", "image_invalid");
  assert.match(error.message, /\/proc/);
});

test("what is no archive, empty or absent is refused by name", { skip }, async () => {
  await writeFile(join(dir.path, "noise.tar"), Buffer.alloc(4096, 0x41));
  await writeFile(join(dir.path, "empty.tar"), writeTar([]));
  await buildFails("tar:noise.tar", "image_invalid");
  assert.match((await buildFails("tar:empty.tar", "image_invalid")).message, /empty/);
  assert.match((await buildFails("tar:none.tar", "image_not_found")).message, /none\.tar/);
  assert.match((await buildFails("dir:none", "image_not_found")).message, /none/);
});

test("a docker archive that is none is refused", { skip: skipOci }, async () => {
  await writeFile(join(dir.path, "noise2.tar"), Buffer.alloc(4096, 0x41));
  await buildFails("docker-archive:noise2.tar", "image_invalid");
  await buildFails("docker-archive:none.tar", "image_not_found");
});

test("a size is obeyed, one that is too small is refused with the needed one", {
  skip,
}, async () => {
  const data = Buffer.alloc(8 * 1024 * 1024, 7);
  await writeFile(join(dir.path, "big.tar"), writeTar([{ name: "big", data }]));
  const image = await build("tar:big.tar", { sizeMib: 100 });
  assert.equal(image.sizeBytes, 100 * 1024 * 1024);
  const error = await buildFails("tar:big.tar", "image_invalid", { sizeMib: 5 });
  assert.match(error.hint, /at least \d+/);
  await buildFails("tar:big.tar", "image_invalid", { sizeMib: 10 ** 9 });
});

test("an abort leaves nothing", { skip }, async () => {
  const data = Buffer.alloc(8 * 1024 * 1024, 9);
  await writeFile(join(dir.path, "abort.tar"), writeTar([{ name: "big", data }]));
  const abort = new AbortController();
  const reason = new ForkdError("internal", "stopped by the test");
  const progress = (message: string): void => {
    if (/unpacking/.test(message)) abort.abort(reason);
  };
  const error = await buildFails("tar:abort.tar", "internal", { signal: abort.signal, progress });
  assert.equal(error, reason);
});

test("what a killed builder left is removed, what a living one holds is not", {
  skip,
}, async () => {
  const staging = rootfsStagingDir(paths());
  const ended = join(staging, "4194304.1-000000000000");
  const living = join(staging, `1.${(await startTicksOf(1)) ?? 0}-000000000000`);
  await mkdir(join(ended, "tree"), { recursive: true });
  await mkdir(living, { recursive: true });
  await writeFile(join(dir.path, "left.tar"), writeTar([{ name: "left", data: "x" }]));
  await build("tar:left.tar");
  assert.deepEqual(await readdir(staging), [living.slice(staging.length + 1)]);
  await run(["rmdir", living]);
});

async function startTicksOf(pid: number): Promise<string | undefined> {
  const text = await readFile(`/proc/${pid}/stat`, "utf8");
  return text.slice(text.lastIndexOf(")") + 2).split(" ")[19];
}

test("the store lists whole images and finds damage", { skip }, async () => {
  await writeFile(join(dir.path, "list.tar"), writeTar([{ name: "list", data: "x" }]));
  const image = await build("tar:list.tar");
  const listed = (await listRootImages(paths())).find(({ sha256 }) => sha256 === image.sha256);
  assert.deepEqual(listed, image);
  await verifyRootImage(image);
  const whole = join(dir.path, "whole.img");
  await cp(image.path, whole);
  await run([
    "dd",
    "if=/dev/zero",
    `of=${image.path}`,
    "bs=1",
    "seek=1080",
    "count=2",
    "conv=notrunc",
  ]);
  await assert.rejects(verifyRootImage(image), { code: "snapshot_incomplete" });
  await publishRootImage(paths(), { path: whole, ref: image.ref, config: image.config });
  await verifyRootImage(image);
});
