import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { copyFile, mkdir, readdir, readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, beforeEach, describe, test } from "node:test";
import { publishHub } from "@forkd/host/fork/publish-hub.ts";
import { packSnapshot } from "@forkd/host/pack/write.ts";
import { missing } from "../../helpers/capabilities.ts";
import { type CliEnd, forkd, startForkd } from "../../helpers/cli.ts";
import { eventually } from "../../helpers/eventually.ts";
import { FaultProxy } from "../../helpers/fault-proxy.ts";
import { startNginx, type TestNginx } from "../../helpers/nginx.ts";
import { fillSite, makePackSite, packOrder } from "../../helpers/packs.ts";
import { makeTmpDir, type TmpDir } from "../../helpers/tmp.ts";
import { sha256Of, Transfers } from "../../helpers/transfers.ts";

const skip = missing({ programs: ["nginx", "zstd"], built: ["native/build/forkd-sparse"] });
const suffix = ".forkd-snapshot.tar.zst";

/** What the audit log tells of packs that were sent and fetched. */
async function transfersIn(dataDir: string): Promise<unknown[][]> {
  const lines = (await readFile(join(dataDir, "audit.log"), "utf8")).trimEnd().split("\n");
  return lines
    .map((line) => JSON.parse(line))
    .filter(({ operation }) => operation === "push" || operation === "pull")
    .map((each) => [each.operation, each.outcome, each.address, each.snapshot_tag, each.sha256]);
}

describe("forkd push, pull and hub, through nginx", { skip }, () => {
  let tmp: TmpDir;
  let nginx: TestNginx;
  let proxy: FaultProxy;
  let source: Awaited<ReturnType<typeof makePackSite>>;
  let dataDir: string;
  let runs = 0;

  before(async () => {
    tmp = await makeTmpDir("hub");
    nginx = await startNginx(tmp.path);
    proxy = await FaultProxy.start({ socketPath: nginx.socket });
    source = await makePackSite();
    await fillSite(source);
    await mkdir(join(nginx.root, "acme/chain"), { recursive: true });
    for (const [tag, version] of [
      ["two", "1.10"],
      ["one", "1.9"],
    ] as const) {
      const file = join(nginx.root, `acme/chain/${version}${suffix}`);
      const order = { ...packOrder(tag, { to: { file, replace: false } }), description: "a chain" };
      await packSnapshot(source.host, order);
    }
  });
  after(async () => {
    await source[Symbol.asyncDispose]();
    await proxy[Symbol.asyncDispose]();
    await nginx[Symbol.asyncDispose]();
    await tmp[Symbol.asyncDispose]();
  });
  beforeEach(async () => {
    runs += 1;
    dataDir = join(tmp.path, `data-${runs}`);
    proxy.forgetFaults();
    proxy.seen.length = 0;
  });

  const hubUrl = (): string => `${proxy.origin}/registry.json`;
  const run = (...args: string[]): Promise<CliEnd> => forkd(args, { dataDir });
  // Whether this host can run the samples is not what is asked here.
  const pull = (...args: string[]): Promise<CliEnd> => run("pull", ...args, "--force", "--json");
  const tags = async (): Promise<string[]> => {
    const names = await readdir(join(dataDir, "snapshots")).catch(() => []);
    return names.filter((name) => !name.startsWith(".")).sort();
  };
  const makeTransfers = async (): Promise<Transfers> => {
    await mkdir(dataDir);
    return new Transfers(dataDir);
  };
  const publish = async (): Promise<void> => {
    await publishHub({
      dir: nginx.root,
      baseUrl: new URL(proxy.origin),
      onNotice: () => undefined,
      signal: AbortSignal.timeout(60_000),
    });
  };

  test("a directory of packs becomes a hub, which lists and gives them", async () => {
    const published = await run("hub", "index", nginx.root, "--base-url", proxy.origin);
    assert.equal(published.code, 0, published.stderr);
    assert.equal(published.stdout, `${join(nginx.root, "registry.json")}\n`);
    const listed = await run("hub", "ls", "--hub", hubUrl(), "--json");
    const { versions, description } = JSON.parse(listed.stdout)["acme/chain"];
    assert.deepEqual(Object.keys(versions).sort(), ["1.10", "1.9", "latest"]);
    assert.equal(description, "a chain");
    assert.deepEqual(versions.latest, versions["1.10"]);
    const bytes = await readFile(join(nginx.root, `acme/chain/1.10${suffix}`));
    assert.equal(versions.latest.sha256, sha256Of(bytes));
    assert.equal(versions.latest.size_bytes, bytes.length);
    const table = await run("hub", "ls", "--hub", hubUrl());
    assert.match(table.stdout, /^acme\/chain +1\.10 .* 2 MiB +debian:bookworm +a chain$/m);
    // What has not changed is not sent again.
    assert.ok(proxy.seen.at(-1)?.headers["if-none-match"]);

    const pulled = await pull("acme/chain", "--hub", hubUrl());
    assert.equal(pulled.code, 0, pulled.stderr);
    const report = JSON.parse(pulled.stdout);
    assert.equal(report.verified, true);
    assert.equal(report.tag, "two");
    assert.deepEqual(await tags(), ["base", "one", "two"]);
    assert.equal((await run("check")).code, 0);
    const older = await pull("acme/chain@1.9", "--hub", hubUrl(), "--tag", "old");
    assert.deepEqual(JSON.parse(older.stdout).reused, ["base"]);
    assert.deepEqual(await readdir(join(dataDir, "cache/pulls")), []);
  });

  test("a pull that is cut ends well all the same", async () => {
    await publish();
    proxy.failNext({ cutAfter: 1000 }, ({ url }) => url.endsWith(suffix));
    const pulled = await pull("acme/chain", "--hub", hubUrl());
    assert.equal(pulled.code, 0, pulled.stderr);
    assert.equal(proxy.seen.filter(({ url }) => url.endsWith(suffix)).length, 2);
  });

  test("a pull that was killed leaves what the next one goes on with", async () => {
    // No pack at all: what is asked is how its bytes come.
    await writeFile(join(nginx.root, "large"), randomBytes(2_000_000));
    proxy.failNext({ stallAfter: 1_000_000 });
    const killed = startForkd(["pull", `${proxy.origin}/large`], { dataDir });
    const partial = await eventually(
      async () => {
        const pulls = join(dataDir, "cache/pulls");
        const name = (await readdir(pulls)).find((file) => file.endsWith(".part"));
        const path = join(pulls, name ?? "none");
        assert.ok((await stat(path)).size >= 500_000);
        return path;
      },
      { timeoutMs: 60_000 },
    );
    killed.process.kill("SIGKILL");
    await killed.ended;
    const { size } = await stat(partial);
    const again = await pull(`${proxy.origin}/large`);
    assert.equal(JSON.parse(again.stderr).code, "pack_invalid");
    assert.equal(proxy.seen.at(-1)?.headers.range, `bytes=${size}-`);
    // What is no pack is not kept for another try.
    assert.deepEqual(await readdir(join(dataDir, "cache/pulls")), []);
  });

  test("a pack that is not what the hub says is not taken", async () => {
    await publish();
    const target = join(nginx.root, `acme/chain/1.10${suffix}`);
    const kept = await readFile(target);
    await copyFile(join(nginx.root, `acme/chain/1.9${suffix}`), target);
    const swapped = await pull("acme/chain", "--hub", hubUrl());
    await writeFile(target, kept);
    assert.equal(swapped.code, 1);
    assert.match(JSON.parse(swapped.stderr).code, /remote_corrupt/);
    assert.deepEqual(await tags(), []);
    const pinned = await pull("acme/chain", "--hub", hubUrl(), "--sha256", "0".repeat(64));
    assert.equal(JSON.parse(pinned.stderr).code, "remote_corrupt");
  });

  test("a hostile index cannot choose what is opened, nor go without a hash", async () => {
    const entry = (url: string, more: object = { sha256: "a".repeat(64) }): string =>
      JSON.stringify({
        schema_version: 1,
        packages: { "acme/x": { versions: { latest: { url, ...more } } } },
      });
    const transfers = await makeTransfers();
    const index = join(nginx.root, "hostile.json");
    for (const [text, code] of [
      [entry("file:///etc/passwd"), "remote_refused"],
      [entry("s3://bucket/key"), "remote_refused"],
      [entry("http://169.254.169.254/latest"), "remote_refused"],
      [entry(proxy.origin.replace("//", "//user:password@")), "remote_refused"],
      [entry("not an address"), "hub_invalid"],
      [entry(`${proxy.origin}/x`, {}), "hub_invalid"],
      ["{".repeat(100_000), "hub_invalid"],
      [`"${"x".repeat(5 * 1024 * 1024)}"`, "hub_invalid"],
    ] as const) {
      await writeFile(index, text);
      const pulling = transfers.pull("acme/x", { hub: `${proxy.origin}/hostile.json` });
      await assert.rejects(pulling, { code }, text.slice(0, 100));
    }
  });

  test("a pack that is larger than the hub says is not fetched to its end", async () => {
    const transfers = await makeTransfers();
    await writeFile(join(nginx.root, "large"), randomBytes(4_000_000));
    const version = { url: `${proxy.origin}/large`, sha256: "a".repeat(64), size_bytes: 1000 };
    const index = { schema_version: 1, packages: { "acme/x": { versions: { latest: version } } } };
    await writeFile(join(nginx.root, "small.json"), JSON.stringify(index));
    let doneBytes = 0;
    const pulling = transfers.pull("acme/x", {
      hub: `${proxy.origin}/small.json`,
      onBytes: (bytes) => {
        doneBytes = bytes;
      },
    });
    await assert.rejects(pulling, { code: "remote_corrupt", message: /over 1000 bytes/ });
    assert.equal(doneBytes, 0);
    assert.deepEqual(await transfers.partials(), []);
  });

  test("a hub, or a server, cannot send a pull to another place of this host by redirects", async () => {
    const transfers = await makeTransfers();
    const location = "http://169.254.169.254/latest/meta-data";
    proxy.failNext({ status: 302, headers: { location } });
    const url = `${proxy.origin}/acme/chain/1.9${suffix}`;
    await assert.rejects(transfers.pull(url), { message: /nearer than itself/ });
    for (let n = 0; n < 7; n += 1) proxy.failNext({ status: 307, headers: { location: "/again" } });
    await assert.rejects(transfers.pull(url), { message: /redirects more than 5 times/ });
    proxy.forgetFaults();
    proxy.failNext({ status: 307, headers: { location: `/acme/chain/1.9${suffix}` } });
    const moved = await transfers.pull(`${proxy.origin}/moved`);
    assert.deepEqual(moved.bytes, await readFile(join(nginx.root, `acme/chain/1.9${suffix}`)));
  });

  test("a snapshot goes to a server as a pack, and comes back by its address and hash", async () => {
    const to = `${proxy.origin}/put/one${suffix}`;
    const from = { dataDir: source.paths.dataDir };
    const pushed = await forkd(["push", "--tag", "one", to, "--json"], from);
    assert.equal(pushed.code, 0, pushed.stderr);
    const { sha256, confirmed, tag } = JSON.parse(pushed.stdout);
    assert.deepEqual([confirmed, tag], [true, "one"]);
    assert.deepEqual(await readdir(join(from.dataDir, "cache/pushes")), []);
    const other = await pull(to, "--sha256", "f".repeat(64));
    assert.equal(JSON.parse(other.stderr).code, "remote_corrupt");
    const pulled = await pull(to, "--sha256", sha256, "--tag", "mine");
    assert.equal(pulled.code, 0, pulled.stderr);
    assert.deepEqual(await tags(), ["base", "mine"]);
    const moved = (await transfersIn(from.dataDir)).at(-1);
    assert.deepEqual(moved, ["push", "ok", to, "one", sha256]);
    assert.deepEqual(await transfersIn(dataDir), [
      ["pull", "remote_corrupt", to, undefined, undefined],
      ["pull", "ok", to, "mine", sha256],
    ]);
  });

  test("the audit log has an address without what it keeps secret", async () => {
    const to = `${proxy.origin}/nothing-here`;
    assert.equal((await pull(`${to}?signature=secret`)).code, 1);
    assert.deepEqual(await transfersIn(dataDir), [
      ["pull", "remote_not_found", to, undefined, undefined],
    ]);
    assert.ok(!(await readFile(join(dataDir, "audit.log"), "utf8")).includes("secret"));
  });

  test("what is refused when it is unpacked need not be fetched again", async () => {
    const url = `${proxy.origin}/acme/chain/1.9${suffix}`;
    assert.equal((await pull(url)).code, 0);
    // It has the tag by now, and nobody said --force.
    const refused = await run("pull", url, "--json");
    assert.notEqual(refused.code, 0);
    assert.equal((await readdir(join(dataDir, "cache/pulls"))).length, 2);
    proxy.seen.length = 0;
    const again = await pull(url, "--tag", "another");
    assert.equal(again.code, 0, again.stderr);
    assert.ok(JSON.parse(again.stdout).resumed_bytes > 0);
    assert.match(proxy.seen[0]?.headers.range ?? "", /^bytes=[1-9]/);
  });
});
