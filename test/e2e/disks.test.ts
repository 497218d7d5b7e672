import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { once } from "node:events";
import {
  createReadStream,
  linkSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
} from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import type { SandboxInfo } from "@forkd/api";
import { type Baked, ensureBaked } from "../helpers/baked.ts";
import { missing } from "../helpers/capabilities.ts";
import { skipWithout } from "../helpers/capability.ts";
import { startDaemon, type TestDaemon } from "../helpers/daemon.ts";
import { eventually } from "../helpers/eventually.ts";
import { flattenDisk, readExt4File, requireCleanExt4 } from "../helpers/scratch-image.ts";
import { makeTmpDir, type TmpDir } from "../helpers/tmp.ts";

/** Of the shared snapshot `scratch`. */
const diskMib = 1024;
const childrenCount = 20;
const writtenMib = 200;
const writeTimeoutSecs = 900;
const mib = 1024 * 1024;

const skip =
  skipWithout("root", "qemu", "guest-agent") ||
  missing({ programs: ["qemu-img", "e2fsck", "debugfs"] });

/**
 * What a child writes: 200 MiB of its own block, past its page cache so that twenty of them fit
 * into a small host, and its name into files that all others write too.
 */
const writer = `
import hashlib, mmap, os, socket
name = socket.gethostname()
block = mmap.mmap(-1, ${mib})
block.write(hashlib.sha256(name.encode()).digest() * (${mib} // 32))
fd = os.open("/var/lib/same", os.O_WRONLY | os.O_CREAT | os.O_DIRECT, 0o600)
for _ in range(${writtenMib}):
    assert os.write(fd, block) == ${mib}
os.close(fd)
for path in ("/etc/same.conf", "/root/same", "/usr/share/same"):
    with open(path, "w") as file:
        file.write(name)
for index in range(200):
    os.makedirs("/srv/%d" % index)
    if index % 2:
        os.rmdir("/srv/%d" % index)
os.sync()
`;

function digest(path: string): Promise<string> {
  const hash = createHash("sha256");
  const stream = createReadStream(path, { highWaterMark: mib });
  stream.on("data", (chunk) => hash.update(chunk));
  return once(stream, "end").then(() => hash.digest("hex"));
}

function blockOf(name: string): Buffer {
  const line = createHash("sha256").update(name).digest();
  return Buffer.alloc(mib, line);
}

/** What a process can change, found without the product's help: `device:inode` to path. */
function writableBy(pid: number): Map<string, string> {
  const found = new Map<string, string>();
  const note = (link: string): void => {
    const stats = statSync(link);
    if (stats.isFile() || stats.isBlockDevice()) {
      found.set(`${stats.dev}:${stats.ino}`, readlinkSync(link));
    }
  };
  for (const fd of readdirSync(`/proc/${pid}/fd`)) {
    const info = readFileSync(`/proc/${pid}/fdinfo/${fd}`, "utf8");
    const flags = Number.parseInt(/flags:\s*(\d+)/.exec(info)?.[1] ?? "2", 8);
    if (flags % 4 !== 0 && readlinkSync(`/proc/${pid}/fd/${fd}`).startsWith("/")) {
      note(`/proc/${pid}/fd/${fd}`);
    }
  }
  for (const line of readFileSync(`/proc/${pid}/maps`, "utf8").split("\n")) {
    const [range = "", perms = "", , , inode] = line.split(/ +/);
    if (perms.includes("w") && perms.endsWith("s") && inode !== "0") {
      note(`/proc/${pid}/map_files/${range}`);
    }
  }
  return found;
}

describe("children with a disk of their own", { skip }, () => {
  let baked: Baked;
  let daemon: TestDaemon;
  let tmp: TmpDir;
  let children: SandboxInfo[];
  let frozen: string[];
  let before20: string[];

  const snapshotDir = () => join(baked.dataDir, "snapshots", baked.tag);
  const topOf = ({ id }: SandboxInfo) => join(baked.dataDir, "work", id, "scratch.1.qcow2");
  const pidOf = ({ pid }: SandboxInfo) => pid ?? assert.fail("a running sandbox has a pid");
  const spawn = (body: object) =>
    daemon.client.createSandboxes({ body: { snapshot_tag: baked.tag, ...body } });
  const exec = (id: string, ...args: string[]) =>
    daemon.client.execSandbox({
      params: { id },
      body: { args, timeout_secs: writeTimeoutSecs, env: {} },
      timeoutMs: (writeTimeoutSecs + 60) * 1000,
    });

  before(async () => {
    tmp = await makeTmpDir("disks");
    baked = await ensureBaked("scratch");
    const manifest = JSON.parse(readFileSync(join(snapshotDir(), "snapshot.json"), "utf8"));
    const image = join(baked.dataDir, "rootfs", `${manifest.rootfs.sha256}.img`);
    const parts = ["memory.bin", "vmstate", "scratch.0"].map((name) => join(snapshotDir(), name));
    frozen = [image, ...parts];
    before20 = await Promise.all(frozen.map(digest));
    assert.equal(before20[0], manifest.rootfs.sha256);
    daemon = await startDaemon(baked.dataDir);
    children = await spawn({ n: childrenCount, scratch_mib: diskMib });
  });
  after(async () => {
    await daemon?.killAll();
    await tmp?.[Symbol.asyncDispose]();
  });

  test("no two VMMs can write one file, nor any what others read", () => {
    const writers = new Map<string, string>();
    const shared = new Set(frozen.map((path) => `${statSync(path).dev}:${statSync(path).ino}`));
    for (const child of children) {
      const own = writableBy(pidOf(child));
      assert.ok([...own.values()].includes(topOf(child)), "its disk is among them");
      for (const [key, path] of own) {
        assert.equal(writers.get(key), undefined, `${path}: ${child.id} and another write it`);
        assert.ok(!shared.has(key), `${child.id} can write ${path}`);
        writers.set(key, child.id);
      }
    }
  });

  test("twenty children write the same files, and 200 MiB each", async () => {
    const results = await Promise.all(children.map(({ id }) => exec(id, "python3", "-c", writer)));
    for (const result of results) assert.equal(result.exit_code, 0, result.stderr);
  });

  test("each sees its own writing, on a disk of the size that was asked for", async () => {
    for (const { id } of children.slice(0, 3)) {
      const script = "cat /etc/same.conf; df -B1M --output=size / | tail -1";
      const { stdout } = await exec(id, "sh", "-c", script);
      const [name = "", size = ""] = stdout.replace(id, `${id}\n`).split("\n");
      assert.equal(name, id);
      assert.ok(Number(size) > 0.8 * diskMib && Number(size) <= diskMib, size);
    }
  });

  test("killed at once, each leaves a file system without fault that holds what it wrote", async () => {
    for (const child of children) linkSync(topOf(child), join(tmp.path, child.id));
    for (const child of children) process.kill(pidOf(child), "SIGKILL");
    for (const { id } of children) {
      const raw = join(tmp.path, `${id}.raw`);
      const top = join(tmp.path, id);
      // A killed VMM's lock on its disk goes with its process.
      await eventually(() => flattenDisk([join(snapshotDir(), "scratch.0"), top], raw));
      requireCleanExt4(raw);
      const written = readExt4File(raw, "/up/var/lib/same", (writtenMib + 1) * mib);
      assert.equal(written.length, writtenMib * mib);
      const block = blockOf(id);
      for (let at = 0; at < written.length; at += mib) {
        assert.ok(written.subarray(at, at + mib).equals(block), `${id} at ${at}`);
      }
      assert.equal(String(readExt4File(raw, "/up/usr/share/same", mib)), id);
      rmSync(raw);
      rmSync(top);
    }
  });

  test("what all of them were forked from is as it was", async () => {
    assert.deepEqual(await Promise.all(frozen.map(digest)), before20);
  });

  test("a larger disk than the snapshot has is refused, and so is one where it has none", async () => {
    await assert.rejects(spawn({ scratch_mib: 2 * diskMib }), {
      code: "scratch_unavailable",
      hint: /--scratch-mib 2048/,
    });
    const python = await ensureBaked("python");
    await assert.rejects(spawn({ snapshot_tag: python.tag, scratch_mib: 64 }), {
      code: "scratch_unavailable",
      hint: /--scratch-mib 64/,
    });
  });
});
