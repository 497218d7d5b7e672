import assert from "node:assert/strict";
import { cp, mkdir, readdir, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { bootstrapDebian } from "@forkd/host/image/debian.ts";
import { run } from "@forkd/host/lib/exec.ts";
import { Client } from "@forkd/sdk";
import { repoRoot } from "../helpers/baked.ts";
import { missing } from "../helpers/capabilities.ts";
import { startInstalled } from "../helpers/installed-daemon.ts";
import { makeTmpDir } from "../helpers/tmp.ts";

const asked =
  process.env["FORKD_TEST_RELEASE"] === "1" ? false : "takes minutes: npm run test:release";
const skip =
  asked ||
  missing({
    root: true,
    programs: ["dpkg-deb", "mmdebstrap", "make", "cc", "tar", "gzip"],
    network: true,
  });

const buildTimeoutMs = 5 * 60_000;
const suite = "bookworm";
/** What the package depends on, without what a minimal Debian has. */
const depends = ["qemu-system-x86", "e2fsprogs", "iproute2", "nftables", "libstdc++6", "zstd"];

async function build(out: string): Promise<string> {
  const argv = [join(repoRoot, "scripts/node"), join(repoRoot, "scripts/release.ts")];
  const env = { ...process.env, SOURCE_DATE_EPOCH: "1700000000" };
  await run([...argv, "--out", out], { env, timeoutMs: buildTimeoutMs });
  return await readFile(join(out, "SHA256SUMS"), "utf8");
}

describe("a release", { skip }, () => {
  const stack = new AsyncDisposableStack();
  let dir: string;
  let sums: string;
  let tarball: string;
  let deb: string;

  before(async () => {
    dir = stack.use(await makeTmpDir("release")).path;
    const out = join(dir, "first");
    sums = await build(out);
    const names = await readdir(out);
    tarball = join(out, names.find((name) => name.endsWith(".tar.gz")) ?? assert.fail());
    deb = join(out, names.find((name) => name.endsWith(".deb")) ?? assert.fail());
  });
  after(() => stack[Symbol.asyncDispose]());

  test("has the same bytes when it is built again", async () => {
    assert.match(
      sums,
      /^[0-9a-f]{64} {2}forkd-v\S+-x86_64-linux\.tar\.gz\n[0-9a-f]{64} {2}\S+\.deb\n$/,
    );
    assert.equal(await build(join(dir, "second")), sums);
  });

  test("runs from where its tarball is unpacked, with no Node on the host", async () => {
    const bin = join(dir, "bin");
    await mkdir(bin);
    await run(["tar", "-xz", "-C", bin, "-f", tarball]);
    const names = (await readdir(bin)).sort();
    assert.deepEqual(names.slice(0, 3), ["forkd", "forkd-controller", "forkd-mcp"]);
    assert.match(names[3] ?? "", /^forkd-v\d+\.\d+\.\d+$/);
    await using daemon = await startInstalled(join(bin, "forkd-controller"), join(dir, "data"));
    const client = new Client({ url: daemon.url });
    assert.deepEqual(await client.health(), { ok: true });
    assert.equal(`forkd-v${(await client.version()).version}`, names[3]);
  });

  test("installs, stays and goes as a package in a clean Debian", async () => {
    const root = join(dir, "root");
    await bootstrapDebian({
      ...{ suite, packages: depends, treeDir: root, tmpDir: dir },
      progress: () => undefined,
      signal: AbortSignal.timeout(buildTimeoutMs),
    });
    await cp(deb, join(root, "tmp/forkd.deb"));
    const inside = async (...argv: string[]): Promise<string> => {
      const env = { PATH: "/usr/sbin:/usr/bin:/sbin:/bin", DEBIAN_FRONTEND: "noninteractive" };
      return (await run(["chroot", root, ...argv], { env })).stdout;
    };
    await inside("dpkg", "--install", "/tmp/forkd.deb");
    assert.match(await inside("forkd", "version"), /^forkd \d/);
    assert.match(await inside("forkd-controller", "--version"), /^forkd-controller \d/);
    const token = await readFile(join(root, "etc/forkd/token"), "utf8");
    assert.equal((await stat(join(root, "etc/forkd/token"))).mode & 0o777, 0o600);
    assert.ok(token.trim().length >= 40);
    const unit = "etc/systemd/system/multi-user.target.wants/forkd-controller.service";
    assert.match(await inside("readlink", `/${unit}`), /forkd-controller\.service/);

    await inside("dpkg", "--install", "/tmp/forkd.deb");
    await inside("dpkg", "--remove", "forkd");
    assert.equal(await readFile(join(root, "etc/forkd/token"), "utf8"), token, "a token is kept");
    await inside("dpkg", "--purge", "forkd");
    const left = await inside(
      ...["find", "/etc", "/usr", "/var", "/lib/systemd", "-name", "*forkd*"],
      ...["-not", "-path", "/var/lib/dpkg/*", "-not", "-path", "/var/log/dpkg.log"],
    );
    assert.equal(left, "");
  });
});
