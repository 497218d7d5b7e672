/**
 * `--extra`: the image's package manager is code of the image. A stand-in for apk in a tree of
 * busybox alone (no bash, no glibc) tells what it could see and do.
 */
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { chmod, copyFile, mkdir, readdir, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { ForkdError } from "@forkd/api";
import { resolveDataPaths } from "@forkd/host/config/data-paths.ts";
import { buildRootImage } from "@forkd/host/image/build.ts";
import { rootfsStagingDir } from "@forkd/host/store/rootfs.ts";
import { missing, staticBusybox } from "../../helpers/capabilities.ts";
import { eventually } from "../../helpers/eventually.ts";
import { readInImage, statInImage } from "../../helpers/ext4.ts";
import { makeTmpDir, type TmpDir } from "../../helpers/tmp.ts";

const busybox = staticBusybox();
const skip =
  missing({ root: true, programs: ["crun", "unshare", "mkfs.ext4", "debugfs"] }) ||
  (busybox === undefined && "needs a static busybox (apt-get install busybox-static)");

let dir: TmpDir;
before(async () => {
  dir = await makeTmpDir("extra");
});
after(() => dir[Symbol.asyncDispose]());

const paths = () => resolveDataPaths({ FORKD_DATA_DIR: join(dir.path, "data") }, 0);

/** A tree of busybox alone, whose apk is this script. */
async function makeTree(name: string, apk: string): Promise<string> {
  const tree = join(dir.path, name);
  await mkdir(join(tree, "bin"), { recursive: true });
  await mkdir(join(tree, "sbin"));
  await mkdir(join(tree, "etc"));
  assert.ok(busybox !== undefined);
  await copyFile(busybox, join(tree, "bin/busybox"));
  for (const applet of ["sh", "cat", "echo", "grep", "ls", "mount", "mknod", "sleep", "touch"]) {
    await symlink("busybox", join(tree, "bin", applet));
  }
  await writeFile(join(tree, "sbin/apk"), `#!/bin/sh\n${apk}\n`);
  await chmod(join(tree, "sbin/apk"), 0o755);
  return tree;
}

function build(
  tree: string,
  extra: string[],
  options: Partial<Parameters<typeof buildRootImage>[0]> = {},
) {
  return buildRootImage({
    ref: `dir:${tree}`,
    extra,
    sizeMib: null,
    paths: paths(),
    progress: () => undefined,
    ...options,
  });
}

const report = [
  'echo "$@" > /report',
  "ls -d /proc/[0-9]* >> /processes",
  "grep -h Cap[EB] /proc/self/status > /capabilities",
  "mount -t tmpfs none /etc 2> /dev/null && echo mounted >> /report",
  "mknod /disk b 8 0 2> /dev/null && echo device >> /report",
  `ls ${process.cwd()} 2> /dev/null && echo host >> /report`,
  "grep -q nameserver /etc/resolv.conf && echo resolver >> /report",
  "echo x 2> /dev/null > /proc/sys/kernel/hostname && echo hostname >> /report",
  "exit 0",
].join("\n");

test("packages are installed by a program that cannot reach the host", { skip }, async () => {
  const tree = await makeTree("honest", report);
  const { path } = await build(tree, ["zlib", "curl", "zlib"]);
  assert.equal(await readInImage(path, "/report"), "add --no-cache -- curl zlib\nresolver\n");
  const processes = (await readInImage(path, "/processes")).trim().split("\n");
  assert.ok(processes.length <= 4, `it saw ${processes.length} processes`);
  // CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SYS_CHROOT SETFCAP.
  const set = "00000000800400fb";
  const capabilities = await readInImage(path, "/capabilities");
  assert.match(capabilities, new RegExp(`CapEff:\\s+${set}\nCapBnd:\\s+${set}`));
  assert.equal(await statInImage(path, "/disk"), undefined);
  assert.deepEqual((await readdir(tree)).sort(), ["bin", "etc", "sbin"]);
});

test("a package that the distribution lacks is named", { skip }, async () => {
  const tree = await makeTree("lacking", 'echo "ERROR: nosuch (no such package)" >&2; exit 1');
  await assert.rejects(build(tree, ["nosuch"]), (error: unknown) => {
    assert.ok(error instanceof ForkdError);
    assert.equal(error.code, "image_not_found");
    assert.match(error.message, /nosuch/);
    return true;
  });
  assert.deepEqual(await readdir(rootfsStagingDir(paths())), []);
});

test("an image without a package manager says so", { skip }, async () => {
  const tree = await makeTree("plain", "exit 0");
  await build(tree, []);
  await mkdir(join(dir.path, "bare/bin"), { recursive: true });
  await assert.rejects(build(join(dir.path, "bare"), ["curl"]), { code: "image_invalid" });
});

test("what could be an option or a path is no package name", { skip }, async () => {
  const tree = await makeTree("names", "exit 0");
  for (const name of ["--root=/", "../x", "a b", "", "x;y", "remove-"]) {
    await assert.rejects(build(tree, [name]), { code: "image_invalid" }, name);
  }
});

function processesWith(word: string): string[] {
  return readdirSync("/proc").filter((pid) => {
    if (!/^\d+$/.test(pid)) return false;
    try {
      return readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0").includes(word);
    } catch {
      return false;
    }
  });
}

test("an abort ends everything that runs in the container", { skip }, async () => {
  const seconds = "86399";
  const tree = await makeTree("endless", `sleep ${seconds} & sleep ${seconds}`);
  const abort = new AbortController();
  const built = build(tree, ["x"], { signal: abort.signal });
  const failed = assert.rejects(built, { name: "AbortError" });
  await eventually(() => assert.equal(processesWith(seconds).length, 2), { timeoutMs: 20_000 });
  abort.abort();
  await failed;
  await eventually(() => assert.deepEqual(processesWith(seconds), []));
  assert.deepEqual(await readdir(rootfsStagingDir(paths())), []);
});
