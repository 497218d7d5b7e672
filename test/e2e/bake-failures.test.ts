/** Parents that cannot be baked and snapshots that cannot be forked: why, what next, no trace. */
import assert from "node:assert/strict";
import {
  cp,
  mkdir,
  open,
  readdir,
  readFile,
  rm,
  stat,
  symlink,
  truncate,
  writeFile,
} from "node:fs/promises";
import { join } from "node:path";
import { afterEach, before, describe, test } from "node:test";
import { run } from "@forkd/host/lib/exec.ts";
import { type Baked, bakedImage, ensureBaked } from "../helpers/baked.ts";
import { skipWithout } from "../helpers/capability.ts";
import { type CliEnd, endsAfter, forkd, startForkd } from "../helpers/cli.ts";
import { type DataDir, makeDataDir, type Shared } from "../helpers/data-dir.ts";
import { eventually } from "../helpers/eventually.ts";
import { vmmProcesses } from "../helpers/vmm-processes.ts";

interface Problem {
  readonly error: string;
  readonly code: string;
  readonly hint: string;
}

/** What `--json` says of a failure, which must have a next step. */
function problemOf(end: CliEnd): Problem {
  assert.equal(end.code, 1, `${end.stdout}\n${end.stderr}`);
  assert.equal(end.stdout, "");
  const problem: Problem = JSON.parse(end.stderr);
  assert.notEqual(problem.hint, "");
  return problem;
}

const skip = skipWithout("root", "qemu", "guest-agent");

describe("bakes that fail", { skip }, () => {
  let baked: Baked;
  before(async () => {
    baked = await ensureBaked();
  });

  const bakeWords = (...words: readonly string[]): string[] => [
    ...["from-image", ...bakedImage, "--tag", "never", ...words],
  ];

  /** Bakes in a data directory of its own and checks that nothing is left there. */
  async function bakeFails(...words: readonly string[]): Promise<Problem> {
    await using data = await makeDataDir("bake", baked);
    const end = await forkd([...bakeWords(...words), "--json"], { dataDir: data.path });
    await assertNoTrace(data);
    return problemOf(end);
  }

  async function assertNoTrace(data: DataDir): Promise<void> {
    await data.assertNothingLeft();
    const { stdout } = await forkd(["images", "--json"], { dataDir: data.path });
    const tags = (JSON.parse(stdout) as { tag: string }[]).map(({ tag }) => tag);
    assert.equal(tags.includes("never"), false);
  }

  test("without a kernel: before anything is built", async () => {
    await using data = await makeDataDir("bake", baked, ["rootfs", "cache"]);
    const end = await forkd([...bakeWords(), "--json"], { dataDir: data.path });
    const { code, error, hint } = problemOf(end);
    assert.equal(code, "kernel_not_found", error);
    assert.match(error, new RegExp(`${data.path}/kernels`));
    assert.match(hint, /forkd kernel install/);
    assert.ok(end.ms < 10_000, `${end.ms} ms`);
    await data.assertNothingLeft();
  });

  test("with a kernel file that is not there, or is no kernel", async () => {
    const absent = await bakeFails("--kernel", "/no/such/vmlinuz");
    assert.equal(absent.code, "kernel_not_found", absent.error);
    const wrong = await bakeFails("--kernel", "/etc/passwd");
    assert.equal(wrong.code, "image_invalid", wrong.error);
  });

  test("a port that never opens", async () => {
    const limit = ["--warm-timeout-secs", "4"];
    const never = ["--warm-cmd", "echo starting; sleep 1000", "--ready", "tcp:9"];
    const { code, error } = await bakeFails(...never, ...limit);
    assert.equal(code, "warmup_timeout", error);
    assert.match(error, /starting/);
  });

  test("a warm-up that ends: its last words are in the message", async () => {
    const broken = ["--warm-cmd", "echo boom >&2; exit 3", "--ready", "file:/run/warm"];
    const { code, error } = await bakeFails(...broken);
    assert.equal(code, "warmup_failed", error);
    assert.match(error, /boom/);
    assert.match(error, /exit code 3/);
  });

  test("an import that is not there", async () => {
    const { code, error } = await bakeFails("--import", "no_such_module");
    assert.equal(code, "warmup_failed", error);
    assert.match(error, /No module named 'no_such_module'/);
  });

  test("a guest that turns itself off", async () => {
    const off = "echo going; echo o > /proc/sysrq-trigger; sleep 1000";
    const { code, error } = await bakeFails("--warm-cmd", off, "--ready", "tcp:9");
    assert.equal(code, "warmup_failed", error);
  });

  test("a tag that is taken, and a forced bake that fails, leave the old snapshot", async () => {
    await using data = await makeDataDir("bake", baked);
    const words = ["from-image", ...bakedImage, "--tag", baked.tag, "--json"];
    const taken = problemOf(await forkd(words, { dataDir: data.path }));
    assert.equal(taken.code, "snapshot_exists", taken.error);
    const forced = [...words, "--force", "--import", "no_such_module"];
    const failed = problemOf(await forkd(forced, { dataDir: data.path }));
    assert.equal(failed.code, "warmup_failed", failed.error);
    const forked = ["fork", "--tag", baked.tag, "-n", "1", "--settle-secs", "0"];
    assert.equal((await forkd(forked, { dataDir: data.path })).code, 0);
    await data.assertNothingLeft();
  });

  for (const size of ["24m", "256k"]) {
    test(`a disk of ${size} that fills up`, () => assertDiskFull(size));
  }

  async function assertDiskFull(size: string): Promise<void> {
    await using data = await makeDataDir("bake-full", baked, ["kernels", "rootfs", "cache"]);
    const snapshots = join(data.path, "snapshots");
    await run(["mount", "-t", "tmpfs", "-o", `size=${size}`, "forkd-test", snapshots]);
    try {
      const end = await forkd([...bakeWords(), "--json"], { dataDir: data.path });
      const { code, error, hint } = problemOf(end);
      assert.equal(code, "disk_full", error);
      assert.match(hint, /FORKD_DATA_DIR/);
      await assertNoTrace(data);
      const { stdout } = await run(["find", snapshots, "-mindepth", "1"]);
      assert.equal(stdout, "");
    } finally {
      await run(["umount", snapshots]);
    }
  }

  for (const [signal, code] of [
    ["SIGTERM", 143],
    ["SIGINT", 130],
  ] as const) {
    test(`${signal} while the parent gets warm`, async () => {
      await using data = await makeDataDir("bake-stop", baked);
      const never = ["--warm-cmd", "sleep 1000", "--ready", "tcp:9"];
      const bake = startForkd(bakeWords(...never), { dataDir: data.path });
      await bake.said(/warming/);
      const end = await endsAfter(bake, signal, 20_000);
      assert.equal(end.code, code, end.stderr);
      await assertNoTrace(data);
    });
  }

  test("SIGKILL: the parent ends with it, the next command tidies up", async () => {
    await using data = await makeDataDir("bake-kill", baked);
    const never = ["--warm-cmd", "sleep 1000", "--ready", "tcp:9"];
    const bake = startForkd(bakeWords(...never), { dataDir: data.path });
    await bake.said(/warming/);
    await endsAfter(bake, "SIGKILL", 5_000);
    await eventually(() => assert.deepEqual(vmmProcesses(data.path), []));
    const left = await readdir(join(data.path, "snapshots"));
    assert.equal(left.filter((name) => name.startsWith(".staging-")).length, 1);
    assert.equal((await forkd(["images"], { dataDir: data.path })).code, 0);
    await assertNoTrace(data);
  });
});

describe("snapshots that are not whole", { skip }, () => {
  let baked: Baked;
  let data: DataDir | undefined;
  before(async () => {
    baked = await ensureBaked();
  });
  afterEach(async () => {
    await data?.assertNothingLeft();
    await data?.[Symbol.asyncDispose]();
    data = undefined;
  });

  const damaged = "damaged";
  const shared: readonly Shared[] = ["kernels", "rootfs", "cache"];

  /** A copy of the shared snapshot whose memory is the shared file itself. */
  async function copySnapshot(damage: (dir: string) => Promise<void>): Promise<DataDir> {
    data = await makeDataDir("damaged", baked, shared);
    const from = join(baked.dataDir, "snapshots", baked.tag);
    const dir = join(data.path, "snapshots", damaged);
    await mkdir(dir);
    await cp(join(from, "vmstate"), join(dir, "vmstate"));
    for (const name of ["memory.bin", "memory.index"]) {
      await symlink(join(from, name), join(dir, name));
    }
    const manifest = JSON.parse(await readFile(join(from, "snapshot.json"), "utf8"));
    await writeFile(join(dir, "snapshot.json"), JSON.stringify({ ...manifest, tag: damaged }));
    await damage(dir);
    return data;
  }

  async function forkDamaged(n: number): Promise<CliEnd> {
    const { path } = data ?? assert.fail();
    const words = ["fork", "--tag", damaged, "-n", String(n), "--settle-secs", "0", "--json"];
    return forkd(words, { dataDir: path });
  }

  test("a copy that is whole can be forked", async () => {
    await copySnapshot(async () => undefined);
    assert.equal((await forkDamaged(1)).code, 0);
  });

  const cases: readonly {
    readonly name: string;
    readonly says: RegExp;
    readonly damage: (dir: string) => Promise<void>;
  }[] = [
    {
      name: "a truncated memory",
      says: /memory\.bin has 4096 bytes/,
      damage: async (dir) => {
        await rm(join(dir, "memory.bin"));
        await writeFile(join(dir, "memory.bin"), Buffer.alloc(4096));
      },
    },
    {
      name: "no memory",
      says: /memory\.bin is missing/,
      damage: (dir) => rm(join(dir, "memory.bin")),
    },
    {
      name: "a truncated state",
      says: /vmstate has 100 bytes/,
      damage: (dir) => truncate(join(dir, "vmstate"), 100),
    },
    { name: "no state", says: /vmstate is missing/, damage: (dir) => rm(join(dir, "vmstate")) },
    {
      name: "a manifest that is no JSON",
      says: /snapshot\.json is not JSON/,
      damage: (dir) => writeFile(join(dir, "snapshot.json"), '{"format": "forkd-sn'),
    },
    {
      name: "a manifest of something else",
      says: /snapshot\.json/,
      damage: (dir) => writeFile(join(dir, "snapshot.json"), '{"format": "another"}'),
    },
    {
      name: "no manifest",
      says: /snapshot\.json is missing/,
      damage: (dir) => rm(join(dir, "snapshot.json")),
    },
    {
      name: "a root image that is gone",
      says: /0{64}\.img/,
      damage: async (dir) => {
        const path = join(dir, "snapshot.json");
        const manifest = JSON.parse(await readFile(path, "utf8"));
        manifest.rootfs.sha256 = "0".repeat(64);
        await writeFile(path, JSON.stringify(manifest));
      },
    },
  ];
  for (const { name, says, damage } of cases) {
    test(name, async () => {
      const { path } = await copySnapshot(damage);
      const { code, error, hint } = problemOf(await forkDamaged(1));
      assert.equal(code, "snapshot_incomplete", error);
      assert.match(error, says);
      assert.match(hint, /forkd rmi/);
      const listed = JSON.parse((await forkd(["images", "--json"], { dataDir: path })).stdout);
      assert.equal(listed[0].status, "failed");
      assert.match(listed[0].warning, says);
      const removed = await forkd(["rmi", damaged], { dataDir: path });
      assert.equal(removed.code, 0, removed.stderr);
    });
  }

  test("a memory of the right size that holds nothing", async () => {
    await copySnapshot(async (dir) => {
      const { size } = await stat(join(dir, "memory.bin"));
      await rm(join(dir, "memory.bin"));
      await writeFile(join(dir, "memory.bin"), "");
      await truncate(join(dir, "memory.bin"), size);
    });
    const { code, error } = problemOf(await forkDamaged(2));
    assert.equal(code, "snapshot_corrupt", error);
  });

  for (const [where, position] of [
    ["from its begin", 0],
    ["in its middle", 0.5],
  ] as const) {
    test(`a state of the right size that is garbage ${where}`, async () => {
      await copySnapshot(async (dir) => {
        await using file = await open(join(dir, "vmstate"), "r+");
        const { size } = await file.stat();
        const from = Math.floor(size * position);
        await file.write(Buffer.alloc(size - from, 0xa5), 0, size - from, from);
      });
      const end = await forkDamaged(2);
      const { code, error } = problemOf(end);
      assert.equal(code, "snapshot_corrupt", error);
      assert.ok(end.ms < 30_000, `${end.ms} ms`);
    });
  }
});
