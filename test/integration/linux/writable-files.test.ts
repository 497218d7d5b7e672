import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { linkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { fileKey, writableFiles } from "@forkd/host/linux/writable-files.ts";
import { missing } from "../../helpers/capabilities.ts";
import { makeTmpDir } from "../../helpers/tmp.ts";

/** Opens and maps one file in each way, says so, and waits. */
const holder = `
import ctypes, mmap, os, sys
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + 3 * [ctypes.c_int] + [ctypes.c_long]
dir = sys.argv[1]
at = lambda name: os.path.join(dir, name)
keep = [os.open(at("read"), os.O_RDONLY), os.open(at("write"), os.O_WRONLY)]
keep.append(os.open(at("both"), os.O_RDWR))
keep.append(os.open(at("append"), os.O_WRONLY | os.O_APPEND))
def mapped(name, flags, prot, mode):
    fd = os.open(at(name), mode)
    assert libc.mmap(None, 4096, prot, flags, fd, 0) != ctypes.c_void_p(-1).value
    os.close(fd)
rw = mmap.PROT_READ | mmap.PROT_WRITE
mapped("shared", mmap.MAP_SHARED, rw, os.O_RDWR)
mapped("shared-read", mmap.MAP_SHARED, mmap.PROT_READ, os.O_RDONLY)
mapped("private", mmap.MAP_PRIVATE, rw, os.O_RDWR)
keep.append(os.pipe())
keep.append(os.open("/dev/null", os.O_RDWR))
print("ready", flush=True)
sys.stdin.read()
`;

const names = ["read", "write", "both", "append", "shared", "shared-read", "private"];
const writable = ["append", "both", "shared", "write"];

test("a process's writable files are those, and only those, that it can change", {
  skip: missing({ programs: ["python3"] }),
}, async () => {
  await using dir = await makeTmpDir("writable");
  for (const name of names) writeFileSync(join(dir.path, name), Buffer.alloc(4096));
  linkSync(join(dir.path, "write"), join(dir.path, "second name"));
  const child: ChildProcess = spawn("python3", ["-c", holder, dir.path], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  try {
    assert.ok(child.stdout !== null && child.pid !== undefined);
    await once(child.stdout, "data");
    const found = await writableFiles(child.pid);
    const ours = found.map(({ path }) => path).filter((path) => path.startsWith(dir.path));
    assert.deepEqual(
      ours.sort(),
      writable.map((name) => join(dir.path, name)),
    );
    const keys = new Set(found.map(({ key }) => key));
    assert.ok(keys.has(fileKey(join(dir.path, "second name"))), "a hard link is the same file");
    assert.ok(!keys.has(fileKey(join(dir.path, "private"))));
  } finally {
    child.kill("SIGKILL");
  }
});

test("a process that has ended has no list", async () => {
  await assert.rejects(writableFiles(2 ** 22 + 1), { code: "ENOENT" });
});
