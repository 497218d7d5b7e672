import assert from "node:assert/strict";
import { chmod, mkdir, open, rename, rm, symlink, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { checkStore, type Fault } from "@forkd/host/fork/check/check.ts";
import { listRootImages } from "@forkd/host/store/rootfs.ts";
import { forkd } from "../../helpers/cli.ts";
import { fillSite, makePackSite, type PackSite, tagOf } from "../../helpers/packs.ts";

/** `base`, `one` and `two`, a chain, with a root image: all as it should be. */
async function makeWhole(): Promise<PackSite> {
  const site = await makePackSite();
  // The stores of unit tests have it in place of an image.
  await rm(join(site.paths.rootfsDir, `${"c".repeat(64)}.img`));
  await fillSite(site);
  return site;
}

const check = async (site: PackSite, tag: string | null = null): Promise<readonly Fault[]> => {
  const scope = {
    paths: site.paths,
    onNotice: () => undefined,
    signal: new AbortController().signal,
  };
  return (await checkStore(scope, tag === null ? null : tagOf(tag))).faults;
};

async function flip(path: string, position: number): Promise<void> {
  await chmod(path, 0o600);
  await using file = await open(path, "r+");
  const byte = Buffer.alloc(1);
  await file.read(byte, 0, 1, position);
  byte.writeUInt8(byte.readUInt8(0) ^ 1);
  await file.write(byte, 0, 1, position);
}

const inSnapshot = ({ paths }: PackSite, tag: string, file: string): string =>
  join(paths.snapshotsDir, tag, file);

test("finds nothing in a store that is whole, and reads all of it", async () => {
  await using site = await makeWhole();
  const { dataDir } = site.paths;
  const run = await forkd(["check", "--json"], { dataDir });
  assert.equal(run.code, 0, run.stderr);
  const { checked, bytes_read: bytes, faults } = JSON.parse(run.stdout);
  assert.deepEqual({ checked, faults }, { checked: 4, faults: [] });
  assert.ok(bytes >= 3 * 1024 * 1024);
});

test("says of every damage where it is and what to do, and lists show it from then on", async () => {
  await using site = await makeWhole();
  const { dataDir } = site.paths;
  await flip(inSnapshot(site, "one", "memory.diff"), 7 * 4096);
  const run = await forkd(["check"], { dataDir });
  assert.equal(run.code, 1);
  assert.match(run.stdout, /^snapshot {2}one: .*memory\.diff is damaged/m);
  assert.match(run.stdout, /hint: .*forkd rmi --cascade one/);
  const listed = JSON.parse((await forkd(["images", "--json"], { dataDir })).stdout);
  const failed = listed.filter(({ status }: { status: string }) => status === "failed");
  assert.deepEqual(failed.map(({ tag }: { tag: string }) => tag).sort(), ["one", "two"]);
  // Its ancestor is whole, and its descendant's own bytes are.
  assert.deepEqual(await check(site, "base"), []);
  assert.deepEqual(
    (await check(site)).map(({ what }) => what),
    ["one"],
  );
  assert.deepEqual(
    (await check(site, "two")).map(({ what }) => what),
    ["one"],
  );
});

test("reads again what was right before", async () => {
  await using site = await makeWhole();
  assert.deepEqual(await check(site), []);
  await flip(inSnapshot(site, "base", "vmstate"), 0);
  const [fault] = await check(site);
  assert.deepEqual([fault?.what, fault?.code], ["base", "snapshot_corrupt"]);
});

test("follows chains to their base", async () => {
  await using site = await makeWhole();
  await rename(join(site.paths.snapshotsDir, "base"), join(site.paths.dataDir, "away"));
  const faults = await check(site);
  assert.deepEqual(
    faults.map(({ what, code }) => [what, code]),
    [
      ["one", "snapshot_incomplete"],
      ["two", "snapshot_incomplete"],
    ],
  );
  assert.match(faults[0]?.why ?? "", /needs its parent 'base', which is missing/);
  assert.equal((await check(site, "two"))[0]?.code, "snapshot_incomplete");
  const run = await forkd(["check", "--tag", "none"], { dataDir: site.paths.dataDir });
  assert.match(run.stderr, /snapshot 'none' not found/);
});

test("compares sizes where there are no hashes", async () => {
  await using site = await makeWhole();
  await truncate(inSnapshot(site, "two", "scratch.2"), 3);
  assert.deepEqual(
    (await check(site)).map(({ what, code }) => [what, code]),
    [["two", "snapshot_incomplete"]],
  );
});

test("finds damaged root images, and images that are none", async () => {
  await using site = await makeWhole();
  const [image] = await listRootImages(site.paths);
  assert.ok(image !== undefined);
  await flip(image.path, 10);
  assert.deepEqual(
    (await check(site, "two")).map(({ what }) => what),
    [image.path],
  );
  await rm(image.path.replace(/img$/, "json"));
  assert.deepEqual(
    (await check(site)).map(({ what, kind }) => [kind, what]),
    [["image", image.path]],
  );
  await rm(image.path);
  const missing = await check(site);
  assert.deepEqual(
    missing.map(({ code }) => code),
    Array(3).fill("snapshot_incomplete"),
  );
});

test("finds what has no business in the store", async () => {
  await using site = await makeWhole();
  const { snapshotsDir, rootfsDir } = site.paths;
  const strays = [
    inSnapshot(site, "base", "notes.txt"),
    join(snapshotsDir, "-odd"),
    join(rootfsDir, "backup.img"),
    join(rootfsDir, `${"d".repeat(64)}.json`),
  ];
  for (const path of strays) await writeFile(path, "x");
  const leftover = join(snapshotsDir, ".staging-999999.1-x-abc");
  await mkdir(leftover);
  const faults = await check(site);
  assert.deepEqual(faults.map(({ what }) => what).sort(), [...strays, leftover].sort());
  assert.ok(faults.every(({ kind, code }) => kind === "stray" && code === null));
  assert.match(faults.find(({ what }) => what === leftover)?.hint ?? "", /forkd leaks --fix/);
});

test("finds kernels that cannot boot and initramfs images that are not theirs", async () => {
  await using site = await makeWhole();
  const { kernelsDir } = site.paths;
  const broken = join(kernelsDir, "6.1-x");
  await mkdir(broken, { recursive: true });
  await mkdir(join(kernelsDir, "initrds"));
  const initrd = join(kernelsDir, "initrds", `${"e".repeat(64)}.img`);
  await writeFile(initrd, "not that");
  assert.deepEqual(
    (await check(site)).map(({ kind, what }) => [kind, what]),
    [
      ["initrd", initrd],
      ["kernel", broken],
    ],
  );
  // A link to nowhere is no kernel either.
  await rm(broken, { recursive: true });
  await symlink("/nowhere", broken);
  assert.equal((await check(site)).at(-1)?.what, broken);
});
