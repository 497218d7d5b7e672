/**
 * Images of a real registry: everything that a layer can say is in the root image, moving tags are
 * followed, and each way in which a registry can fail has its own code.
 */
import assert from "node:assert/strict";
import { readdir, stat } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { ForkdError } from "@forkd/api";
import { resolveDataPaths } from "@forkd/host/config/data-paths.ts";
import { buildRootImage } from "@forkd/host/image/build.ts";
import { run } from "@forkd/host/lib/exec.ts";
import { sha256File } from "@forkd/host/lib/hash.ts";
import { rootfsStagingDir } from "@forkd/host/store/rootfs.ts";
import { missing } from "../../helpers/capabilities.ts";
import {
  listInImage,
  readInImage,
  readLinkInImage,
  statInImage,
  xattrInImage,
} from "../../helpers/ext4.ts";
import {
  fixtureLayers,
  makeOciImage,
  netBindCapabilityHex,
  pushImage,
} from "../../helpers/oci-fixture.ts";
import { startRegistry, type TestRegistry } from "../../helpers/registry.ts";
import { makeTmpDir, type TmpDir } from "../../helpers/tmp.ts";

const programs = ["skopeo", "umoci", "docker-registry", "mkfs.ext4", "debugfs"];
const skip = missing({ root: true, programs });

let dir: TmpDir;
let registry: TestRegistry;

before(async () => {
  if (skip !== false) return;
  dir = await makeTmpDir("registry");
  registry = await startRegistry(join(dir.path, "registry"));
  await makeOciImage(join(dir.path, "layout"), "app");
  await pushImage(`oci:${dir.path}/layout:app`, `${registry.host}/team/app:1.0`);
});

after(async () => {
  if (skip !== false) return;
  await registry[Symbol.asyncDispose]();
  await dir[Symbol.asyncDispose]();
});

const pathsIn = (name: string) => resolveDataPaths({ FORKD_DATA_DIR: join(dir.path, name) }, 0);

function build(name: string, ref: string, options: { readonly refresh?: boolean } = {}) {
  const said: string[] = [];
  const image = buildRootImage({
    ref,
    extra: [],
    sizeMib: null,
    paths: pathsIn(name),
    progress: (message) => said.push(message),
    ...options,
  });
  return image.then((built) => ({ ...built, said }));
}

async function assertNoStaging(name: string): Promise<void> {
  const left = await readdir(rootfsStagingDir(pathsIn(name))).catch(() => []);
  assert.deepEqual(left, []);
}

const failsWith = (code: string, words: RegExp) => (error: unknown) => {
  assert.ok(error instanceof ForkdError);
  assert.equal(error.code, code, error.message);
  assert.match(error.message, words);
  assert.notEqual(error.hint, "");
  return true;
};

test("layers of a registry's image arrive whole", { skip }, async (t) => {
  const { path, sha256 } = await build("whole", `${registry.host}/team/app:1.0`);

  await t.test("later layers replace, remove and hide", async () => {
    assert.equal(await readInImage(path, "/etc/os-release"), "third\n");
    assert.deepEqual(await listInImage(path, "/etc"), ["far", "link", "noted", "os-release"]);
    assert.deepEqual(await listInImage(path, "/opt/data"), ["new"]);
  });

  await t.test("hard links stay one file", async () => {
    const [a, b] = [await statInImage(path, "/usr/lib/a"), await statInImage(path, "/usr/lib/b")];
    assert.equal(a?.links, 2);
    assert.equal(a?.inode, b?.inode);
  });

  await t.test("owners and modes stay", async () => {
    const owner = async (file: string) => {
      const { uid, gid, mode } = (await statInImage(path, file)) ?? {};
      return [uid, gid, mode];
    };
    assert.deepEqual(await owner("/home/u"), [1234, 2345, 0o700]);
    assert.deepEqual(await owner("/home/u/file"), [1234, 2345, 0o640]);
    assert.deepEqual(await owner("/home/u/big-owner"), [2_000_000, 65_534, 0o644]);
    assert.deepEqual(await owner("/usr/bin/suid"), [0, 0, 0o4755]);
    assert.deepEqual(await owner("/var/spool"), [0, 0, 0o1777]);
    assert.deepEqual(await owner("/"), [0, 0, 0o755]);
  });

  await t.test("symbolic links keep their text", async () => {
    assert.equal(await readLinkInImage(path, "/etc/link"), "os-release");
    assert.equal(await readLinkInImage(path, "/etc/far"), "/etc/os-release");
  });

  await t.test("extended attributes stay", async () => {
    const note = await xattrInImage(path, "/etc/noted", "user.note");
    assert.equal(note, Buffer.from("kept").toString("hex"));
    const capability = await xattrInImage(path, "/usr/bin/capped", "security.capability");
    assert.equal(capability, netBindCapabilityHex);
  });

  await t.test("the guest's mount points exist", async () => {
    const modes = ["/proc", "/sys", "/dev", "/run", "/tmp"].map((name) => statInImage(path, name));
    const found = (await Promise.all(modes)).map((stats) => [stats?.type, stats?.mode]);
    const dirs = [0o555, 0o555, 0o755, 0o755, 0o1777].map((mode) => ["directory", mode]);
    assert.deepEqual(found, dirs);
  });

  await t.test("the file is named by its content, read-only and sparse", async () => {
    assert.equal(await sha256File(path), sha256);
    const { mode, size, blocks } = await stat(path);
    assert.equal(mode & 0o7777, 0o444);
    assert.ok(blocks * 512 < size / 4, `${blocks * 512} of ${size} bytes are allocated`);
  });
  await assertNoStaging("whole");
});

test("an image's environment, user, directory and command are kept", { skip }, async () => {
  const { config } = await build("config", `docker://${registry.host}/team/app:1.0`);
  assert.deepEqual(config, {
    env: { PATH: "/usr/bin:/bin", GREETING: "hello = world" },
    user: "1234:2345",
    workdir: "/home/u",
    entrypoint: ["/usr/bin/suid"],
    cmd: ["--serve"],
  });
});

test("a second build takes the first one's image, a refresh does not", { skip }, async () => {
  const ref = `${registry.host}/team/app:1.0`;
  const first = await build("cache", ref);
  const started = performance.now();
  const second = await build("cache", ref);
  assert.ok(performance.now() - started < 1000);
  assert.equal(second.sha256, first.sha256);
  assert.match(second.said.join(), /built before/);
  assert.deepEqual(second.config, first.config);
  const third = await build("cache", ref, { refresh: true });
  assert.doesNotMatch(third.said.join(), /built before/);
});

test("a tag that moves is followed", { skip }, async () => {
  const name = `${registry.host}/team/moving:latest`;
  await pushImage(`oci:${dir.path}/layout:app`, name);
  const before = await build("moving", `${registry.host}/team/moving`);
  const layout = join(dir.path, "moved-layout");
  await makeOciImage(layout, "app", [...fixtureLayers, [{ name: "etc/moved", data: "yes\n" }]]);
  await pushImage(`oci:${layout}:app`, name);
  const after = await build("moving", `${registry.host}/team/moving`);
  assert.notEqual(after.sha256, before.sha256);
  assert.equal(await readInImage(after.path, "/etc/moved"), "yes\n");
});

test("a digest selects an image, a tag beside it says nothing", { skip }, async () => {
  const { stdout } = await run([
    "skopeo",
    "inspect",
    "--tls-verify=false",
    `docker://${registry.host}/team/app:1.0`,
  ]);
  const digest = /"Digest": "(sha256:[0-9a-f]{64})"/.exec(stdout)?.[1];
  const byDigest = await build("digest", `${registry.host}/team/app@${digest}`);
  const both = await build("digest", `${registry.host}/team/app:none@${digest}`);
  assert.equal(both.sha256, byDigest.sha256);
});

test("layers compressed with zstd are unpacked", { skip }, async () => {
  const at = (name: string): string => `dir:${join(dir.path, name)}`;
  const copy = ["skopeo", "copy", "--quiet"];
  await run([...copy, "--dest-decompress", `oci:${dir.path}/layout:app`, at("plain")]);
  const compress = ["--dest-compress", "--dest-compress-format", "zstd"];
  await run([...copy, ...compress, at("plain"), at("zstd")]);
  await pushImage(at("zstd"), `${registry.host}/team/zstd:1.0`);
  const { path, config } = await build("zstd", `${registry.host}/team/zstd:1.0`);
  assert.equal(await readInImage(path, "/etc/os-release"), "third\n");
  assert.equal((await statInImage(path, "/home/u/file"))?.uid, 1234);
  assert.equal(config.workdir, "/home/u");
});

test("an image or tag that the registry does not have is not found", { skip }, async () => {
  for (const name of ["team/app:2.0", "team/none:1.0"]) {
    const ref = `${registry.host}/${name}`;
    await assert.rejects(build("absent", ref), failsWith("image_not_found", new RegExp(name)));
  }
  await assertNoStaging("absent");
});

test("a registry that is down is unreachable", { skip }, async () => {
  // A port that was free a moment ago and that nobody listens on.
  const server = createServer().listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  const address = server.address();
  assert.ok(address !== null && typeof address === "object");
  await new Promise((resolve) => server.close(resolve));
  const ref = `127.0.0.1:${address.port}/team/app:1.0`;
  await assert.rejects(build("down", ref), failsWith("registry_unreachable", /team\/app/));
  await assertNoStaging("down");
});

test("a registry that answers nonsense is an error with a hint", { skip }, async () => {
  const server = createServer((socket) => {
    socket.on("error", () => undefined).resume();
    socket.end("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
  }).listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  try {
    const address = server.address();
    assert.ok(address !== null && typeof address === "object");
    const ref = `127.0.0.1:${address.port}/team/app:1.0`;
    await assert.rejects(build("nonsense", ref), (error: unknown) => {
      assert.ok(error instanceof ForkdError);
      assert.match(error.code, /^(image_invalid|registry_unreachable|image_not_found)$/);
      return true;
    });
  } finally {
    await new Promise((resolve) => server.close(resolve));
  }
  await assertNoStaging("nonsense");
});
