/** Installing and choosing guest kernels, with a package made here in the distribution's layout. */
import assert from "node:assert/strict";
import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { gunzipSync, gzipSync, zstdCompressSync } from "node:zlib";
import { resolveDataPaths } from "@forkd/host/config/data-paths.ts";
import { extractVmlinux } from "@forkd/host/kernel/bzimage.ts";
import { installKernel } from "@forkd/host/kernel/install.ts";
import { resolveKernel } from "@forkd/host/kernel/resolve.ts";
import { run } from "@forkd/host/lib/exec.ts";
import { sha256File } from "@forkd/host/lib/hash.ts";
import { findDefaultKernel, kernelStagingDir, listKernels } from "@forkd/host/store/kernels.ts";
import { missing } from "../../helpers/capabilities.ts";
import { writeBzImage, writeElf, writeModule } from "../../helpers/kernel-fixture.ts";
import { makeTmpDir, type TmpDir } from "../../helpers/tmp.ts";

const release = "6.1.0-9-cloud-amd64";
const elfKernel = writeElf({ ".rodata": `Linux version ${release} (builder@host)\0` });
const skip = missing({ programs: ["dpkg-deb"] });

let dir: TmpDir;
before(async () => {
  dir = await makeTmpDir("kernel");
  await mkdir(join(dir.path, "guest/runtime"), { recursive: true });
  await writeFile(join(dir.path, "guest/agent"), "agent one");
  await writeFile(join(dir.path, "guest/runtime/python.py"), "python");
  await writeFile(join(dir.path, "guest/runtime/notes.txt"), "not a runtime");
});
after(() => dir[Symbol.asyncDispose]());

const guest = () => ({
  agent: join(dir.path, "guest/agent"),
  runtimeDir: join(dir.path, "guest/runtime"),
});
const pathsIn = (name: string) => resolveDataPaths({ FORKD_DATA_DIR: join(dir.path, name) }, 0);

const modules: readonly (readonly [string, readonly string[]])[] = [
  ["drivers/virtio/virtio_ring", []],
  ["drivers/virtio/virtio", ["virtio_ring"]],
  ["drivers/block/virtio_blk", ["virtio", "virtio_ring"]],
  ["drivers/char/hw_random/virtio-rng", ["virtio"]],
  ["drivers/sound/unwanted", []],
];

/** A .deb with a kernel and modules, some of them compressed. */
async function makePackage(name: string, vmlinuz = gzipSync(elfKernel)): Promise<string> {
  const tree = join(dir.path, `${name}-tree`);
  const lib = join(tree, "lib/modules", release, "kernel");
  await mkdir(join(tree, "DEBIAN"), { recursive: true });
  await mkdir(join(tree, "boot"));
  const control = [`Package: ${name}`, "Version: 1", "Architecture: amd64", "Maintainer: t <t@t>"];
  await writeFile(join(tree, "DEBIAN/control"), [...control, "Description: test", ""].join("\n"));
  await writeFile(join(tree, `boot/vmlinuz-${release}`), writeBzImage(release, vmlinuz));
  for (const [path, depends] of modules) {
    const file = join(lib, `${path}.ko`);
    await mkdir(join(file, ".."), { recursive: true });
    const data = writeModule(path.slice(path.lastIndexOf("/") + 1), depends);
    if (path.endsWith("virtio_blk")) await writeFile(`${file}.zst`, zstdCompressSync(data));
    else await writeFile(file, data);
    if (path.endsWith("/virtio")) await run(["xz", file]);
  }
  const file = join(dir.path, `${name}.deb`);
  await run(["dpkg-deb", "--build", "--root-owner-group", tree, file]);
  return file;
}

function install(data: string, file: string) {
  return installKernel({
    paths: pathsIn(data),
    progress: () => undefined,
    source: [file],
    guest: guest(),
  });
}

test("a package becomes the default kernel, with all that it takes to boot", { skip }, async () => {
  const kernel = await install("first", await makePackage("linux-image-one"));
  assert.equal(kernel.release, release);
  assert.deepEqual(await readFile(kernel.vmlinux ?? ""), elfKernel);
  assert.equal(await sha256File(kernel.vmlinuz), kernel.sha256.vmlinuz);
  assert.equal(await sha256File(kernel.initrd), kernel.sha256.initrd);
  const stored = await findDefaultKernel(pathsIn("first"));
  assert.equal(stored?.record.id, kernel.id);
  const order = stored?.record.modules.map(({ name }) => name);
  assert.deepEqual(order, ["virtio_ring", "virtio", "virtio_blk", "virtio_rng"]);
  const archive = gunzipSync(await readFile(kernel.initrd)).toString("latin1");
  assert.ok(archive.includes("agent one"));
  assert.ok(archive.includes("/forkd/modules.d/virtio_ring.ko\n/forkd/modules.d/virtio.ko\n"));
  assert.ok(!archive.includes("unwanted") && !archive.includes("notes.txt"));
  assert.deepEqual(await readdir(kernelStagingDir(pathsIn("first"))), []);
});

test("a second install changes nothing", { skip }, async () => {
  const file = await makePackage("linux-image-twice");
  const first = await install("twice", file);
  assert.deepEqual(await install("twice", file), first);
  assert.equal((await listKernels(pathsIn("twice"))).length, 1);
});

test("a new agent gets a new initramfs of the same kernel, the old one comes back", {
  skip,
}, async () => {
  const first = await install("agents", await makePackage("linux-image-agents"));
  await writeFile(join(dir.path, "guest/agent"), "agent two");
  const second = await resolveKernel(pathsIn("agents"), { guest: guest() });
  assert.equal(second.id, first.id);
  assert.notEqual(second.sha256.initrd, first.sha256.initrd);
  await writeFile(join(dir.path, "guest/agent"), "agent one");
  const third = await resolveKernel(pathsIn("agents"), { guest: guest() });
  assert.deepEqual(third, first);
});

test("a brought kernel gets the modules of its release, or none", { skip }, async () => {
  const paths = pathsIn("brought");
  const installed = await install("brought", await makePackage("linux-image-brought"));
  const elf = join(dir.path, "vmlinux");
  await writeFile(elf, elfKernel);
  const same = await resolveKernel(paths, { vmlinuz: elf, guest: guest() });
  assert.equal(same.initrd, installed.initrd);
  assert.equal(same.vmlinux, elf);
  const other = join(dir.path, "vmlinuz-other");
  await writeFile(other, writeBzImage("7.0.0-own", gzipSync(elfKernel)));
  const own = await resolveKernel(paths, { vmlinuz: other, guest: guest() });
  assert.equal(own.release, "7.0.0-own");
  assert.equal(own.vmlinux, null);
  assert.ok(!gunzipSync(await readFile(own.initrd)).includes("virtio_ring"));
  const ready = await resolveKernel(paths, { vmlinuz: other, initrd: elf });
  assert.equal(ready.initrd, elf);
});

test("kernels that are absent or none are refused", { skip }, async () => {
  const paths = pathsIn("absent");
  await assert.rejects(resolveKernel(paths), { code: "kernel_not_found", hint: /kernel install/ });
  const none = { vmlinuz: join(dir.path, "none"), guest: guest() };
  await assert.rejects(resolveKernel(paths, none), { code: "kernel_not_found" });
  await assert.rejects(resolveKernel(paths, { ...none, vmlinuz: dir.path }), {
    code: "kernel_not_found",
  });
  await assert.rejects(resolveKernel(paths, { ...none, vmlinuz: guest().agent }), {
    code: "image_invalid",
  });
});

test("a package without a usable kernel leaves nothing", { skip }, async () => {
  const file = await makePackage("linux-image-broken", Buffer.alloc(64, 0x11));
  await assert.rejects(install("broken", file), { code: "image_invalid" });
  assert.deepEqual(await readdir(pathsIn("broken").kernelsDir), [".staging"]);
  assert.deepEqual(await readdir(kernelStagingDir(pathsIn("broken"))), []);
});

test("a kernel with a damaged record is none, and is replaced by the next install", {
  skip,
}, async () => {
  const file = await makePackage("linux-image-damaged");
  const kernel = await install("damaged", file);
  const record = join(pathsIn("damaged").kernelsDir, kernel.id, "kernel.json");
  await writeFile(record, '{"format":1,"id":"../x"}');
  assert.equal(await findDefaultKernel(pathsIn("damaged")), undefined);
  assert.deepEqual(await listKernels(pathsIn("damaged")), []);
  assert.deepEqual(await install("damaged", file), kernel);
  assert.equal((await listKernels(pathsIn("damaged"))).length, 1);
});

/** Each program's output, as the kernel's build appends the size behind it. */
const codecs: readonly (readonly [string, readonly string[]])[] = [
  ["xz", ["xz", "--check=crc32", "--keep", "--stdout"]],
  ["lzma", ["xz", "--format=lzma", "--keep", "--stdout"]],
  ["lz4", ["lz4", "-l", "-c"]],
];

for (const [codec, argv] of codecs) {
  const lacks = missing({ programs: [argv[0] ?? ""] });
  test(`a kernel compressed with ${codec} is extracted`, { skip: lacks }, async () => {
    await using tmp = await makeTmpDir(codec);
    const plain = join(tmp.path, "plain");
    await writeFile(plain, elfKernel);
    await run([
      "sh",
      "-c",
      'out=$1; shift; "$@" > "$out"',
      "sh",
      `${plain}.${codec}`,
      ...argv,
      plain,
    ]);
    const size = Buffer.alloc(4);
    size.writeUInt32LE(elfKernel.length);
    const image = join(tmp.path, "vmlinuz");
    await writeFile(
      image,
      writeBzImage(release, Buffer.concat([await readFile(`${plain}.${codec}`), size])),
    );
    assert.deepEqual(await extractVmlinux(image, tmp.path), elfKernel);
    assert.deepEqual((await readdir(tmp.path)).sort(), ["plain", `plain.${codec}`, "vmlinuz"]);
  });
}
