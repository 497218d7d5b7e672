/** What a killed `forkd pack` leaves beside its file, and who removes it. */
import assert from "node:assert/strict";
import { chmod, mkdir, readdir, readFile, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { identifyProcess } from "@forkd/host/linux/proc.ts";
import { packStagingName, removeLeftoverPacks } from "@forkd/host/pack/staging-file.ts";
import { missing } from "../../helpers/capabilities.ts";
import { type CliRun, forkd, startForkd } from "../../helpers/cli.ts";
import { eventually } from "../../helpers/eventually.ts";
import { fillSite, makePackSite } from "../../helpers/packs.ts";
import { makeTmpDir } from "../../helpers/tmp.ts";

const skip = missing({ programs: ["zstd"], built: ["native/build/forkd-sparse"] });

/** Starts a pack whose compressor begins its file, says its pid in `dir`, and goes on for ever. */
async function startHeldPack(dir: string, dataDir: string, out: string): Promise<CliRun> {
  const script = `#!/bin/sh\n: > "$4"\necho $$ > ${dir}/pid\nexec sleep 600\n`;
  await writeFile(join(dir, "zstd"), script);
  await chmod(join(dir, "zstd"), 0o755);
  const path = process.env["PATH"];
  process.env["PATH"] = `${dir}:${path}`;
  try {
    return startForkd(["pack", "--tag", "base", "--out", out], { dataDir });
  } finally {
    process.env["PATH"] = path;
  }
}

async function pidIn(path: string): Promise<number> {
  const text = await readFile(path, "utf8");
  assert.match(text, /^[1-9]\d*\n$/);
  return Number(text);
}

test("the next pack to the directory removes what a killed one left", { skip }, async () => {
  await using dir = await makeTmpDir("held");
  await using to = await makeTmpDir("packs");
  await using site = await makePackSite();
  await fillSite(site);
  const { dataDir } = site.paths;
  const packTo = async (name: string) => {
    const end = await forkd(["pack", "--tag", "base", "--out", join(to.path, name)], { dataDir });
    assert.equal(end.code, 0, end.stderr);
  };
  const staged = async () =>
    (await readdir(to.path)).filter((name) => name.startsWith(".staging-pack-"));
  const held = await startHeldPack(dir.path, dataDir, join(to.path, "held.zst"));
  const pid = await eventually(() => pidIn(join(dir.path, "pid")), { timeoutMs: 60_000 });
  try {
    await packTo("while-it-lives.zst");
    assert.equal((await staged()).length, 1, "that of a living process is gone");
    held.process.kill("SIGKILL");
    await eventually(() => assert.equal(held.process.signalCode, "SIGKILL"));
    assert.equal((await staged()).length, 1);
    await packTo("after-it.zst");
    assert.deepEqual((await readdir(to.path)).sort(), ["after-it.zst", "while-it-lives.zst"]);
  } finally {
    held.process.kill("SIGKILL");
    process.kill(pid, "SIGKILL");
    await held.ended;
  }
});

test("other hosts' packs go when they are old; other files never do", async () => {
  await using dir = await makeTmpDir("leftovers");
  const self = identifyProcess(process.pid) ?? assert.fail();
  const file = join(dir.path, "p.zst");
  const old = new Date(Date.now() - 3 * 24 * 60 * 60_000);
  const make = async (path: string, time?: Date): Promise<string> => {
    await writeFile(path, "half");
    if (time !== undefined) await utimes(path, time, time);
    return path;
  };
  const foreign = { ...self, bootId: "another-boot" };
  const kept = [
    await make(packStagingName(file, self), old),
    await make(packStagingName(file, foreign)),
    await make(join(dir.path, ".staging-pack-1.1-x"), old),
    await make(join(dir.path, "p.zst.old"), old),
  ];
  const directory = packStagingName(file, { ...self, startTicks: 1 });
  await mkdir(directory);
  await make(packStagingName(file, foreign), old);
  await make(packStagingName(file, { ...self, startTicks: self.startTicks + 1 }));
  await removeLeftoverPacks(file, self);
  const names = (await readdir(dir.path)).map((name) => join(dir.path, name));
  assert.deepEqual(names.sort(), [...kept, directory].sort());
  await removeLeftoverPacks(join(dir.path, "missing", "p.zst"), self);
});
