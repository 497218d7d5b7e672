import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { mkdir, open, readdir, readFile, symlink, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { resolveDataPaths } from "@forkd/host/config/data-paths.ts";
import { cleanUp } from "@forkd/host/fork/cleanup/cleanup.ts";
import { bootId } from "@forkd/host/linux/proc.ts";
import { layout } from "@forkd/host/store/layout.ts";
import { makeTmpDir } from "../../helpers/tmp.ts";
import { forkd } from "./forkd.ts";

const hash = (digit: string): string => digit.repeat(64);
const longAgo = new Date(Date.now() - 86_400_000);

/** A file that was last used yesterday, in a directory that was too. */
async function put(dir: string, name: string, bytes = 8192): Promise<string> {
  await mkdir(dir, { recursive: true });
  const path = join(dir, name);
  await writeFile(path, "x".repeat(bytes));
  await utimes(path, longAgo, longAgo);
  return path;
}

/** One of everything that cleanup knows, and things that it must not know. */
async function litter(root: string) {
  const paths = resolveDataPaths({ FORKD_DATA_DIR: join(root, "data") }, process.getuid?.() ?? 0);
  const cold = join(layout.overlaysDir(paths), bootId());
  await put(join(cold, hash("a")), "memory");
  await utimes(join(cold, hash("a")), longAgo, longAgo);
  await put(join(cold, hash("b")), "memory");
  const going = [
    join(cold, hash("a")),
    await put(join(paths.cacheDir, "flat"), "0123.img"),
    await put(layout.pullsDir(paths), `${hash("c")}.part`),
    await put(join(root, "tmp"), "forkd-fork-77"),
  ];
  await mkdir(join(paths.workDir, ".old-4194305.1-sb-1-1"), { recursive: true });
  going.push(join(paths.workDir, ".old-4194305.1-sb-1-1"));
  const staying = [
    // Used a moment ago; kept for people; another's; a link to elsewhere; a snapshot.
    join(cold, hash("b")),
    await put(layout.quarantineDir(paths), "1-strange"),
    await put(join(root, "tmp"), "forkd-test-1"),
    await put(join(paths.snapshotsDir, "base"), "snapshot.json"),
    await put(join(paths.cacheDir, "flat"), "notes.txt"),
  ];
  await symlink(join(paths.snapshotsDir, "base"), join(root, "tmp", "forkd-pull-1"));
  return { paths, going, staying };
}

const envOf = (root: string) => ({
  FORKD_DATA_DIR: join(root, "data"),
  TMPDIR: join(root, "tmp"),
});

test("cleanup tells what could go, with sizes, and removes nothing", async () => {
  await using dir = await makeTmpDir("cleanup");
  const { going, staying } = await litter(dir.path);
  const end = await forkd(["cleanup"], { env: envOf(dir.path) });
  assert.equal(end.code, 0, end.err);
  for (const path of [...going, ...staying]) assert.ok(existsSync(path), path);
  for (const path of going) assert.match(end.out, new RegExp(`${path} +DEL$`, "m"));
  assert.match(end.out, /quarantine.*SKIP \(look at it, and remove it yourself\)$/m);
  assert.match(end.out, /flat_image +8\.0 KiB/);
  // Other tests may have left images in memory.
  assert.match(end.out, /^([5-9]|\d\d+) can go, \d[\d.]* [KMG]iB: forkd cleanup --yes$/m);
  assert.ok(!end.out.includes("forkd-pull-1") && !end.out.includes("forkd-test-1"));
  assert.equal((await forkd(["cleanup", "--yes", "--dry-run"])).code, 2);
});

test("cleanup --yes removes it, and nothing else", async () => {
  await using dir = await makeTmpDir("cleanup");
  const { going, staying } = await litter(dir.path);
  const end = await forkd(["cleanup", "-y"], { env: envOf(dir.path) });
  assert.equal(end.code, 0, end.err);
  assert.match(end.out, /^removed ([5-9]|\d\d+), freed/m);
  for (const path of going) assert.ok(!existsSync(path), path);
  for (const path of staying) assert.ok(existsSync(path), path);
});

test("what a process has open stays", async () => {
  await using dir = await makeTmpDir("cleanup");
  const { paths } = await litter(dir.path);
  const path = join(paths.cacheDir, "flat", "0123.img");
  await using handle = await open(path);
  const end = await forkd(["cleanup", "--yes", "--json"], { env: envOf(dir.path) });
  const items: { what: string; keep: string | null; removed: boolean }[] = JSON.parse(end.out);
  const item = items.find(({ what }) => what === path);
  assert.deepEqual([item?.keep, item?.removed], ["a process uses it", false]);
  assert.equal((await handle.read(Buffer.alloc(1))).bytesRead, 1);
  assert.equal((await readFile(path)).length, 8192);
});

test("root images go when asked, unless a snapshot names them", async () => {
  await using dir = await makeTmpDir("cleanup");
  const { paths } = await litter(dir.path);
  for (const sha256 of [hash("d"), hash("e")]) {
    const image = await put(paths.rootfsDir, `${sha256}.img`);
    const config = { env: {}, user: "", workdir: "", cmd: [], entrypoint: [] };
    const record = { format: 1, ref: "debian:12", size_bytes: 8192, built_at_unix: 1, config };
    await writeFile(join(paths.rootfsDir, `${sha256}.json`), JSON.stringify(record));
    assert.ok(existsSync(image));
  }
  const manifest = JSON.stringify({ root: { sha256: hash("d") } });
  await writeFile(join(paths.snapshotsDir, "base", "snapshot.json"), manifest);
  const end = await forkd(["cleanup", "--images", "--json"], { env: envOf(dir.path) });
  const items: { kind: string; what: string; keep: string | null }[] = JSON.parse(end.out);
  const images = items.filter(({ kind }) => kind === "root_image");
  // Made just now: two hours later it goes.
  assert.deepEqual(
    images.map(({ what, keep }) => [what, keep]),
    [[join(paths.rootfsDir, `${hash("e")}.img`), "it was used in the last hour"]],
  );
  const tmpDir = join(dir.path, "tmp");
  const nowMs = Date.now() + 2 * 60 * 60_000;
  await cleanUp({ paths, tmpDir, images: true, remove: true, nowMs });
  assert.deepEqual((await readdir(paths.rootfsDir)).sort(), [
    `${hash("d")}.img`,
    `${hash("d")}.json`,
  ]);
  const plain = await forkd(["cleanup", "--json"], { env: envOf(dir.path) });
  assert.ok(!plain.out.includes("root_image"));
});
