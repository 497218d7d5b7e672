import assert from "node:assert/strict";
import { createHash, randomInt } from "node:crypto";
import { existsSync } from "node:fs";
import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { ForkdError } from "@forkd/api";
import { UnpackStaging } from "@forkd/host/pack/staging.ts";
import { unpackSnapshot } from "@forkd/host/pack/unpack.ts";
import { packSnapshot } from "@forkd/host/pack/write.ts";
import { missing } from "../../helpers/capabilities.ts";
import {
  archiveIn,
  archiveOf,
  fillSite,
  makePackSite,
  manifestTextOf,
  membersOf,
  type PackSite,
  packOrder,
  plainMember,
  type RawMember,
  tagOf,
  textOf,
  unpackOrder,
  zstd,
} from "../../helpers/packs.ts";
import { writeTar } from "../../helpers/tar-writer.ts";
import { makeTmpDir, type TmpDir } from "../../helpers/tmp.ts";

const skip = missing({ programs: ["zstd"], built: ["native/build/forkd-sparse"] });
/** Copies of a pack with one byte changed; each is refused or, where it does not matter, taken. */
const flipsTried = 20;

describe("hostile packs", { skip }, () => {
  let dir: TmpDir;
  let from: PackSite;
  let to: PackSite;
  let sound: Buffer;
  let members: readonly RawMember[];

  before(async () => {
    dir = await makeTmpDir("hostile");
    from = await makePackSite();
    to = await makePackSite();
    await fillSite(from);
    const file = join(dir.path, "two.zst");
    await packSnapshot(from.host, packOrder("two", { to: { file, replace: false } }));
    sound = await readFile(file);
    members = membersOf(await archiveIn(file));
  });
  after(async () => {
    for (const each of [dir, from, to]) await each?.[Symbol.asyncDispose]();
  });

  /** Whatever is refused has left nothing: no snapshot, no image, no staging. */
  async function refused(pack: Buffer, code: string, message: RegExp): Promise<void> {
    const file = join(dir.path, "hostile.zst");
    await writeFile(file, pack);
    const isThat = (error: unknown): boolean => {
      assert.ok(error instanceof ForkdError, String(error));
      assert.equal(error.code, code, error.message);
      assert.match(error.message, message);
      return true;
    };
    await assert.rejects(unpackSnapshot(to.host, unpackOrder({ from: { file } })), isThat);
    await assertUntouched();
  }

  async function assertUntouched(): Promise<void> {
    const { snapshotsDir, rootfsDir, kernelsDir } = to.paths;
    assert.deepEqual(await readdir(snapshotsDir).catch(() => []), []);
    assert.deepEqual(
      (await readdir(rootfsDir)).filter((name) => name !== ".staging"),
      [`${"c".repeat(64)}.img`],
    );
    for (const staging of [rootfsDir, kernelsDir].map((each) => join(each, ".staging"))) {
      assert.deepEqual(await readdir(staging).catch(() => []), []);
    }
  }

  /** The pack with another manifest. */
  async function rewritten(change: (text: string) => string): Promise<Buffer> {
    const text = manifestTextOf(members);
    const changed = change(text);
    assert.notEqual(changed, text, "the test has changed nothing");
    return await zstd(archiveOf([plainMember("manifest.toml", changed), ...members.slice(1)]));
  }

  const withMember = (member: RawMember): Promise<Buffer> => zstd(archiveOf([...members, member]));
  const replaceIn = (path: string, data: Buffer): Promise<Buffer> =>
    zstd(archiveOf(members.map((each) => (each.name === path ? plainMember(path, data) : each))));

  const names = ["../../escape", "/etc/forkd-escape", "snapshots/two/../../../x", "surprise", ""];
  for (const name of names) {
    test(`a member named ${JSON.stringify(name)} is refused`, async () => {
      const member = plainMember("x", "x");
      const header = Buffer.from(member.header);
      header.fill(0, 0, 100).write(name);
      const sum = header.reduce((all, byte, at) => all + (at >= 148 && at < 156 ? 32 : byte), 0);
      header.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148);
      await refused(await withMember({ ...member, header }), "pack_invalid", /not declared/);
    });
  }

  for (const path of ["../x", "/etc/x", "snapshots/two/../x", "snapshots/two/x", "images/x.img"]) {
    test(`a manifest that declares ${path} is refused`, async () => {
      const pack = await rewritten((text) => text.replace("snapshots/two/vmstate", path));
      await refused(pack, "pack_invalid", /is no path of a pack/);
    });
  }

  for (const type of ["hardlink", "symlink", "dir", "fifo"] as const) {
    test(`a ${type} is refused`, async () => {
      const tar = writeTar([{ name: "snapshots/two/vmstate", type, linkTo: "/etc/passwd" }]);
      const [manifest] = members;
      assert.ok(manifest);
      const pack = Buffer.concat([manifest.header, manifest.data, tar]);
      await refused(await zstd(pack), "pack_invalid", /plain files only/);
    });
  }

  test("a member twice, a member less, and no manifest are refused", async () => {
    const [manifest, second, ...rest] = members;
    assert.ok(manifest !== undefined && second !== undefined);
    await refused(await withMember(second), "pack_invalid", /twice/);
    await refused(await zstd(archiveOf([manifest, ...rest])), "pack_invalid", /not in the pack/);
    await refused(await zstd(archiveOf([second, ...rest])), "pack_invalid", /begins with a manif/);
    await refused(await zstd(archiveOf([])), "pack_invalid", /begins with a manif/);
  });

  test("sizes and hashes that lie are refused", async () => {
    const lies: readonly (readonly [RegExp, string, RegExp])[] = [
      [/size = 10\n/, "size = 11\n", /not the size|stores more/],
      [/(vmstate"\n.*\n.*\nsha256 = ")./, "$1x", /Invalid|pattern/],
      [/manifest_sha256 = "[0-9a-f]/, 'manifest_sha256 = "x', /Invalid|pattern/],
      [/memory_mib = 2/, "memory_mib = 3", /another memory_mib/],
      [/engine_version = "7.2.0"\naccel = "tcg"/, 'engine_version = "7.2.0"\naccel = "kvm"', /KVM/],
    ];
    for (const [pattern, text, message] of lies) {
      const code = /KVM/.test(message.source) ? "snapshot_incompatible" : "pack_invalid";
      await refused(await rewritten((all) => all.replace(pattern, text)), code, message);
    }
  });

  test("a disk of another size than the snapshot says is refused", async () => {
    const path = "snapshots/two/snapshot.json";
    const member = members.find(({ name }) => name === path) ?? assert.fail();
    const text = textOf(member);
    const lie = text.replace('"size_mib": 64', '"size_mib": 99');
    const [was, is] = [text, lie].map((each) => createHash("sha256").update(each).digest("hex"));
    const pack = manifestTextOf(members).replaceAll(was ?? "", is ?? "");
    const others = members
      .slice(1)
      .map((each) => (each === member ? plainMember(path, lie) : each));
    const archive = archiveOf([plainMember("manifest.toml", pack), ...others]);
    await refused(await zstd(archive), "pack_invalid", /no raw disk of size_mib MiB/);
  });

  test("bytes that are not those of their hashes are refused", async () => {
    const state = Buffer.from("state in 4");
    await refused(
      await replaceIn("snapshots/two/vmstate", state),
      "pack_invalid",
      /vmstate is not/,
    );
    const image = members.find(({ name }) => name.endsWith(".img"));
    const memory = members.find(({ name }) => name.endsWith("two/memory.diff"));
    for (const member of [image, memory]) {
      assert.ok(member);
      const data = Buffer.from(member.data);
      data[data.length - 600] = (data[data.length - 600] ?? 0) ^ 1;
      const pack = archiveOf(members.map((each) => (each === member ? { ...each, data } : each)));
      const isMemory = member === memory;
      const code = isMemory ? "snapshot_corrupt" : "pack_invalid";
      await refused(await zstd(pack), code, isMemory ? /damaged/ : /is not what was packed/);
    }
  });

  test("a file that unpacks to much more than it declares is refused before it is written", async () => {
    const bomb = plainMember("snapshots/base/vmstate", Buffer.alloc(32 * 1024 * 1024));
    const others = members.filter(({ name }) => name !== bomb.name);
    await refused(await zstd(archiveOf([...others, bomb])), "pack_invalid", /not the size/);
    const zeros = Buffer.concat([archiveOf(members), Buffer.alloc(64 * 1024 * 1024)]);
    await refused(await zstd(zeros), "pack_invalid", /follows the end/);
  });

  test("what no host could hold is refused by its declaration alone", async () => {
    const huge = await rewritten((text) =>
      text.replace(/(vmstate"\nsize = )\d+\nstored_bytes = \d+/, "$199999999999\nstored_bytes = 1"),
    );
    await refused(huge, "pack_invalid", /too large/);
    await using staging = new UnpackStaging(to.host);
    await assert.rejects(staging.requireRoom(2 ** 60), { code: "disk_full" });
  });

  test("newer versions and other hosts are told apart", async () => {
    const version = (n: number) =>
      rewritten((text) => text.replace("forkd_pack_version = 3", `forkd_pack_version = ${n}`));
    await refused(await version(4), "pack_invalid", /version 4, this forkd reads up to 3/);
    await refused(await version(0), "pack_invalid", /forkd_pack_version/);
    const arch = await rewritten((text) => text.replace(/arch = ".*"/, 'arch = "riscv64"'));
    await refused(arch, "snapshot_incompatible", /of a riscv64 host/);
    const protocol = await rewritten((text) => text.replace("protocol = 1", "protocol = 2"));
    await refused(protocol, "snapshot_incompatible", /protocol 2/);
  });

  test("a chain that is no chain is refused", async () => {
    const swapped = await rewritten((text) => {
      const [, links = ""] = /(\[\[chain\]\][\s\S]*?)\[\[files\]\]/.exec(text) ?? [];
      const [base = "", one = "", two = ""] = links.split(/(?=\[\[chain\]\])/);
      return text.replace(links, one + base + two);
    });
    await refused(swapped, "pack_invalid", /no link of the one before it/);
    const twice = await rewritten((text) => text.replace('tag = "one"', 'tag = "base"'));
    await refused(twice, "pack_invalid", /a tag twice/);
    const same = await rewritten((text) =>
      text.replace(/same_as = "snapshots\/base\/scratch.0"/, 'same_as = "snapshots/base/vmstate"'),
    );
    await refused(same, "pack_invalid", /cannot be the same file/);
  });

  test("another file than the one that was named is refused", async () => {
    const file = join(dir.path, "named.zst");
    await writeFile(file, sound);
    const order = unpackOrder({ from: { file }, sha256: "0".repeat(64) });
    await assert.rejects(unpackSnapshot(to.host, order), { code: "pack_invalid" });
    await assertUntouched();
  });

  test("cut off anywhere, it is refused", async () => {
    for (const part of [0, 0.001, 0.2, 0.5, 0.9]) {
      const cut = sound.subarray(0, Math.floor(sound.length * part));
      await refused(cut, "pack_invalid", /damaged|begins with|cut off/);
      const tar = archiveOf(members);
      const open = tar.subarray(0, Math.floor(tar.length * part));
      await refused(await zstd(Buffer.from(open)), "pack_invalid", /cut off|begins with/);
    }
  });

  test("with any byte changed it is refused, or it is the same snapshot", async () => {
    for (let i = 0; i < flipsTried; i += 1) {
      const tar = Buffer.from(archiveOf(members));
      const at = randomInt(tar.length);
      tar[at] = (tar[at] ?? 0) ^ (1 << randomInt(8));
      const file = join(dir.path, "flipped.zst");
      await writeFile(file, await zstd(tar, "-1"));
      try {
        await unpackSnapshot(to.host, unpackOrder({ from: { file } }));
        await to.store.open(tagOf("two"));
        await to.store.remove(tagOf("base"), "cascade");
      } catch (error) {
        assert.ok(error instanceof ForkdError, `byte ${at}: ${error}`);
        assert.notEqual(error.code, "internal", `byte ${at}: ${error.message}`);
        assert.deepEqual(await to.store.list(), [], `byte ${at}`);
      }
    }
    assert.ok(!existsSync("/etc/forkd-escape"));
  });
});
