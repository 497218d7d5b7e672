import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { symlink } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { ForkdError, type SandboxInfo, type SnapshotInfo } from "@forkd/api";
import { run } from "@forkd/host/lib/exec.ts";
import { type Baked, ensureBaked } from "../helpers/baked.ts";
import { skipWithout } from "../helpers/capability.ts";
import { startDaemon, type TestDaemon } from "../helpers/daemon.ts";
import { type DataDir, makeDataDir } from "../helpers/data-dir.ts";
import { eventually } from "../helpers/eventually.ts";
import { assertOneInstant, lookAtPattern, startPattern } from "../helpers/pattern.ts";
import { spawnOne } from "../helpers/spawn-one.ts";

/** A guest's instant must be whole however often it is taken. */
const branchesMax = 200;
const killsMax = 8;
const modes = ["full", "diff", "live"] as const;
const codeOf = (code: string) => (error: unknown) =>
  error instanceof ForkdError && error.code === code;

describe("branches of a running sandbox", {
  skip: skipWithout("root", "qemu", "guest-agent"),
}, () => {
  let data: DataDir;
  let daemon: TestDaemon;
  let parent: SandboxInfo;
  let baked: Baked;
  const client = () => daemon.client;

  before(async () => {
    baked = await ensureBaked();
    data = await makeDataDir("branch", baked);
    daemon = await startDaemon(data.path);
    parent = await spawnOne(client(), baked.tag);
    await startPattern(client(), parent.id);
  });
  after(async () => {
    await daemon?.killAll();
    await data?.assertNothingLeft();
    await data?.[Symbol.asyncDispose]();
  });

  const kill = (id: string) => client().deleteSandbox({ params: { id } });
  const branch = (body: object, id = parent.id) => client().branchSandbox({ params: { id }, body });
  const remove = (tag: string) => client().deleteSnapshot({ params: { tag } });
  const find = async (tag: string): Promise<SnapshotInfo[]> =>
    (await client().listSnapshots()).filter((item) => item.tag === tag);
  const assertParentWell = async (): Promise<void> => {
    const before = await lookAtPattern(client(), parent.id);
    assertOneInstant(before, "the parent");
    assert.equal(before.broken, null, "the parent's TCP connection");
    await eventually(async () => {
      const now = await lookAtPattern(client(), parent.id);
      assert.ok(now.echoes > before.echoes && now.round > before.round, "the parent stands still");
    });
  };
  const assertRestores = async (tag: string): Promise<void> => {
    const child = await spawnOne(client(), tag);
    assertOneInstant(await lookAtPattern(client(), child.id), tag);
    assert.equal(child.identity?.generation, (parent.identity?.generation ?? 0) + 1);
    await kill(child.id);
  };

  test("a branch is a snapshot with the names that clients know", async () => {
    const info = await branch({ tag: "first", mode: "diff" });
    assert.equal(info.tag, "first");
    assert.equal(info.status, "ready");
    assert.equal(info.bootable, true);
    assert.equal(info.branched_from, parent.id);
    assert.ok((info.pause_ms ?? -1) >= 0);
    assert.ok((info.diff_physical_bytes ?? 0) > 0);
    assert.ok((info.diff_logical_bytes ?? 0) > 0);
    const source = await client().getSandbox({ params: { id: parent.id } });
    assert.equal(source.has_branched, true);
    assert.equal(source.branch_count, 1);
    assert.ok(existsSync(source.last_branch_memory_path ?? ""));
    await assertRestores("first");
  });

  test("a branch of a branch of a branch keeps all that came before", async () => {
    let source = parent;
    const made: string[] = [];
    const kids: string[] = [];
    for (const [depth, mode] of (["diff", "live", "diff"] as const).entries()) {
      const body = { code: `depth_${depth} = ${depth}`, timeout_secs: 30 };
      await client().evalSandbox({ params: { id: source.id }, body });
      const tag = `deep-${depth}`;
      await branch({ tag, mode }, source.id);
      source = await spawnOne(client(), tag);
      made.push(tag);
      kids.push(source.id);
    }
    const { result } = await client().evalSandbox({
      params: { id: source.id },
      body: { code: "[depth_0, depth_1, depth_2]", timeout_secs: 30 },
    });
    assert.equal(result, "[0, 1, 2]");
    assert.equal(source.identity?.generation, (parent.identity?.generation ?? 0) + 3);
    assertOneInstant(await lookAtPattern(client(), source.id), "the grandchild");
    await Promise.all(kids.map(kill));
    for (const tag of made.toReversed()) await remove(tag);
  });

  test("without a tag it gets one that says where it is from", async () => {
    const info = await branch({});
    assert.match(info.tag, new RegExp(`^branch-${parent.id}-\\d+-[0-9a-f]{4}$`));
    await remove(info.tag);
  });

  test("what cannot be is refused with the code that clients know", async () => {
    await assert.rejects(branch({ tag: "first", mode: "diff" }), codeOf("snapshot_exists"));
    await assert.rejects(branch({ tag: "no/tag" }), codeOf("invalid_tag"));
    await assert.rejects(branch({ mode: "diff", live: true }), codeOf("bad_request"));
    await assert.rejects(branch({ wait: false }), codeOf("bad_request"));
    await assert.rejects(branch({}, "sb-0-unknown"), codeOf("sandbox_not_found"));
    const other = { mode: "diff", parent_tag: "other" };
    await assert.rejects(branch(other), codeOf("bad_request"));
    const info = await branch({ tag: "named", mode: "diff", parent_tag: baked.tag });
    assert.equal(info.status, "ready");
    await remove("named");
  });

  test("a live branch that nobody waits for is listed once, and true at every instant", async () => {
    const info = await branch({ tag: "later", mode: "live", wait: false });
    assert.equal(info.status, "writing");
    assert.equal(info.bootable, false);
    const listed = await find("later");
    assert.equal(listed.length, 1);
    if (listed[0]?.status === "writing") {
      await assert.rejects(remove("later"), codeOf("snapshot_not_ready"));
      await assert.rejects(spawnOne(client(), "later"), codeOf("snapshot_not_ready"));
    }
    await eventually(
      async () => {
        const [now, ...more] = await find("later");
        assert.equal(more.length, 0);
        assert.equal(now?.status, "ready");
      },
      { timeoutMs: 60_000 },
    );
    await assertRestores("later");
    await remove("later");
  });

  test("a budget that cannot be kept gives up, and the next branch is exact", async () => {
    const body = { tag: "hasty", mode: "diff", max_pause_ms: 0.01 };
    await assert.rejects(branch(body), codeOf("branch_budget_exceeded"));
    assert.deepEqual(await find("hasty"), []);
    await assertParentWell();
    await branch({ tag: "exact", mode: "diff" });
    await assertRestores("exact");
    await remove("exact");
  });

  test("a killed writer leaves the parent running and nothing else", async () => {
    for (const mode of modes) {
      const making = branch({ tag: "killed", mode });
      making.catch(() => undefined);
      await eventually(() => process.kill(captureOf(parent.pid), "SIGKILL"), { everyMs: 1 });
      await assert.rejects(making, codeOf("engine_failed"));
      assert.deepEqual(await find("killed"), []);
      await assertParentWell();
    }
    await branch({ tag: "exact", mode: "live" });
    await assertRestores("exact");
    await remove("exact");
  });

  test("a full disk leaves the parent running and nothing else", async () => {
    await using tiny = await tinySnapshotRoot(data.path, baked);
    for (const mode of modes) {
      await assert.rejects(branch({ tag: "large", mode }), codeOf("disk_full"));
      await assertParentWell();
    }
    assert.deepEqual(tiny.names(), []);
  });

  test("a kill during a branch ends both", async () => {
    const child = await spawnOne(client(), baked.tag);
    const making = branch({ tag: "doomed", mode: "full" }, child.id);
    making.catch(() => undefined);
    await eventually(() => captureOf(child.pid), { everyMs: 1 });
    await kill(child.id);
    await assert.rejects(making, codeOf("sandbox_ended"));
    assert.deepEqual(await find("doomed"), []);
  });

  test("a kill at any time of a branch leaves a whole snapshot or none", async () => {
    for (let turn = 0; turn < killsMax; turn += 1) {
      const tag = `killed-${turn}`;
      const child = await spawnOne(client(), baked.tag);
      const making = branch({ tag, mode: "full" }, child.id).then(
        () => true,
        (error: unknown) => {
          assert.ok(codeOf("sandbox_ended")(error), String(error));
          return false;
        },
      );
      // From the first instant to about when it would be done, on a host that does nothing else.
      await delay(turn * 100);
      await kill(child.id);
      const isMade = await making;
      assert.deepEqual(
        (await find(tag)).map(({ status }) => status),
        isMade ? ["ready"] : [],
      );
      if (!isMade) continue;
      await kill((await spawnOne(client(), tag)).id);
      await remove(tag);
    }
  });

  test(`each of ${branchesMax} branches in all modes is one instant`, async (t) => {
    let worst = 0;
    for (let turn = 0; turn < branchesMax; turn += 1) {
      const tag = `turn-${turn}`;
      const mode = modes[turn % modes.length] ?? "full";
      const info = await branch({ tag, mode });
      worst = Math.max(worst, info.pause_ms ?? 0);
      await assertRestores(tag);
      await remove(tag);
    }
    await assertParentWell();
    t.diagnostic(`longest pause ${worst} ms`);
  });
});

/** The pid of the program that captures a VMM. Throws when there is none. */
function captureOf(vmm: number | null): number {
  for (const name of readdirSync("/proc").filter((entry) => /^\d+$/.test(entry))) {
    const argv = commandLine(name);
    if (argv[0]?.endsWith("/forkd-capture") && argv.includes(String(vmm))) return Number(name);
  }
  throw new Error(`nothing captures ${vmm}`);
}

function commandLine(pid: string): string[] {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0");
  } catch {
    return [];
  }
}

/** Puts a file system of a few MiB where the next snapshots go. */
async function tinySnapshotRoot(dataDir: string, baked: Baked) {
  const dir = join(dataDir, "snapshots");
  await run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", dir]);
  await symlink(join(baked.dataDir, "snapshots", baked.tag), join(dir, baked.tag));
  return {
    names: () => readdirSync(dir).filter((name) => name !== baked.tag),
    [Symbol.asyncDispose]: async () => {
      await run(["umount", dir]);
    },
  };
}
