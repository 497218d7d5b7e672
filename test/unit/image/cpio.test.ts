import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { gunzipSync } from "node:zlib";
import { type CpioEntry, writeCpio } from "@forkd/host/kernel/cpio.ts";
import { buildInitramfs, initramfsEntries } from "@forkd/host/kernel/initramfs.ts";
import { run } from "@forkd/host/lib/exec.ts";
import { missing } from "../../helpers/capabilities.ts";
import { makeTmpDir } from "../../helpers/tmp.ts";

interface Read {
  readonly name: string;
  readonly mode: number;
  readonly data: string;
  readonly mtime: number;
  readonly rdev: readonly [number, number];
}

/** Reads an archive as the kernel does: header, name, data, each padded to four. */
function readCpio(archive: Buffer): Read[] {
  const entries: Read[] = [];
  for (let at = 0; ; ) {
    assert.equal(archive.toString("latin1", at, at + 6), "070701");
    const field = (index: number): number =>
      Number.parseInt(archive.toString("latin1", at + 6 + index * 8, at + 14 + index * 8), 16);
    const nameEnd = at + 110 + field(11);
    const name = archive.toString("utf8", at + 110, nameEnd - 1);
    const start = Math.ceil(nameEnd / 4) * 4;
    const end = start + field(6);
    if (name === "TRAILER!!!") return entries;
    const data = archive.toString("utf8", start, end);
    entries.push({ name, mode: field(1), data, mtime: field(5), rdev: [field(9), field(10)] });
    at = Math.ceil(end / 4) * 4;
  }
}

const sample: readonly CpioEntry[] = [
  { kind: "file", name: "init", mode: 0o755, data: Buffer.from("abcde") },
  { kind: "dir", name: "dev", mode: 0o755 },
  { kind: "char", name: "dev/console", mode: 0o600, major: 5, minor: 1 },
  { kind: "file", name: "empty", mode: 0o644, data: Buffer.alloc(0) },
];

test("entries are sorted, with type, mode, device and data", () => {
  assert.deepEqual(readCpio(writeCpio(sample)), [
    { name: "dev", mode: 0o040755, data: "", mtime: 0, rdev: [0, 0] },
    { name: "dev/console", mode: 0o020600, data: "", mtime: 0, rdev: [5, 1] },
    { name: "empty", mode: 0o100644, data: "", mtime: 0, rdev: [0, 0] },
    { name: "init", mode: 0o100755, data: "abcde", mtime: 0, rdev: [0, 0] },
  ]);
});

test("the order in which entries are given does not matter", () => {
  assert.deepEqual(writeCpio([...sample].reverse()), writeCpio(sample));
});

test("names that the kernel cannot unpack are refused", () => {
  for (const name of ["", "/init", "a//b", "a/../b", "./a", "a\0b", "x".repeat(5000)]) {
    assert.throws(() => writeCpio([{ kind: "dir", name, mode: 0 }]), RangeError, name.slice(0, 20));
  }
  const twice = sample.slice(0, 1);
  assert.throws(() => writeCpio([...twice, ...twice]), /twice/);
});

test("cpio(1) reads the archive", { skip: missing({ programs: ["cpio"] }) }, async () => {
  await using dir = await makeTmpDir("cpio");
  const file = join(dir.path, "archive");
  await writeFile(file, writeCpio(sample));
  const { stdout } = await run(["cpio", "--list", "--quiet", "--file", file]);
  assert.equal(stdout, "dev\ndev/console\nempty\ninit\n");
});

const parts = {
  agent: Buffer.from("agent"),
  modules: [
    { name: "virtio", data: Buffer.from("v") },
    { name: "overlay", data: Buffer.from("o") },
  ],
  runtimes: new Map([["python.py", Buffer.from("p")]]),
};

test("the initramfs holds what the boot contract names", () => {
  const entries = new Map(initramfsEntries(parts).map((entry) => [entry.name, entry]));
  const list = entries.get("forkd/modules");
  assert.ok(list?.kind === "file");
  const order = "/forkd/modules.d/virtio.ko\n/forkd/modules.d/overlay.ko\n";
  assert.equal(Buffer.from(list.data).toString(), order);
  assert.equal(entries.get("init")?.mode, 0o755);
  for (const name of ["dev/console", "proc", "sys", "run", "forkd/runtime/python.py"]) {
    assert.ok(entries.has(name), name);
  }
});

test("every entry's directory is in the archive before it", () => {
  const names = readCpio(writeCpio(initramfsEntries(parts))).map(({ name }) => name);
  for (const [index, name] of names.entries()) {
    const parent = name.slice(0, Math.max(0, name.lastIndexOf("/")));
    assert.ok(parent === "" || names.indexOf(parent) < index, name);
  }
});

test("the same parts give the same bytes", async () => {
  const [first, second] = [await buildInitramfs(parts), await buildInitramfs(parts)];
  assert.deepEqual(first, second);
  assert.deepEqual(gunzipSync(first), writeCpio(initramfsEntries(parts)));
});
