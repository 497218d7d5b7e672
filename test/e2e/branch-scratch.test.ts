import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import type { BranchMode, SandboxInfo } from "@forkd/api";
import { type Baked, ensureBaked } from "../helpers/baked.ts";
import { skipWithout } from "../helpers/capability.ts";
import { startDaemon, type TestDaemon } from "../helpers/daemon.ts";
import { type DataDir, makeDataDir } from "../helpers/data-dir.ts";
import { assertOneDiskInstant, startDiskPattern } from "../helpers/disk-pattern.ts";
import { assertOneInstant, lookAtPattern, startPattern } from "../helpers/pattern.ts";
import { spawnOne } from "../helpers/spawn-one.ts";

/** Enough that the layers of the sandbox's own are merged three times. */
const branches = 24;
const modes = ["full", "diff", "live"] as const satisfies readonly BranchMode[];

describe("branches with a scratch disk", {
  skip: skipWithout("root", "qemu", "guest-agent"),
}, () => {
  let data: DataDir;
  let daemon: TestDaemon;
  let parent: SandboxInfo;
  let baked: Baked;
  const client = () => daemon.client;

  before(async () => {
    baked = await ensureBaked("scratch");
    data = await makeDataDir("branch-scratch", baked);
    daemon = await startDaemon(data.path);
    parent = await spawnOne(client(), baked.tag);
    await startPattern(client(), parent.id);
    await startDiskPattern(client(), parent.id);
  });
  after(async () => {
    await daemon?.killAll();
    await data?.assertNothingLeft();
    await data?.[Symbol.asyncDispose]();
  });

  const kill = (id: string) => client().deleteSandbox({ params: { id } });
  const branch = (tag: string, mode: BranchMode, id = parent.id) =>
    client().branchSandbox({ params: { id }, body: { tag, mode } });
  const assertWhole = async (id: string): Promise<void> => {
    assertOneInstant(await lookAtPattern(client(), id), id);
    await assertOneDiskInstant(client(), id);
  };
  const run = async (id: string, command: string): Promise<string> => {
    const body = { args: ["/bin/sh", "-c", command] };
    const {
      stdout,
      stderr,
      exit_code: code,
    } = await client().execSandbox({ params: { id }, body });
    assert.equal(code, 0, stderr);
    return stdout.trim();
  };

  test(`each of ${branches} is one instant of memory and disk`, async () => {
    for (let turn = 0; turn < branches; turn += 1) {
      const tag = `turn-${turn}`;
      await branch(tag, modes[turn % modes.length] ?? "full");
      const child = await spawnOne(client(), tag);
      await assertWhole(child.id);
      await kill(child.id);
      await client().deleteSnapshot({ params: { tag } });
    }
    const own = readdirSync(join(data.path, "work", parent.id)).filter((name) =>
      name.startsWith("scratch."),
    );
    assert.ok(own.length <= 9, `layers: ${own.join(" ")}`);
  });

  test("files of the parent are in its forks, and no fork sees another's", async () => {
    await run(parent.id, "echo before > /root/file && sync");
    await branch("one", "live");
    await run(parent.id, "echo after > /root/file");
    const [a, b] = [await spawnOne(client(), "one"), await spawnOne(client(), "one")];
    await run(a.id, "echo a > /root/file");
    assert.equal(await run(b.id, "cat /root/file"), "before");
    await branch("two", "diff", a.id);
    const c = await spawnOne(client(), "two");
    assert.equal(await run(c.id, "cat /root/file"), "a");
    assert.equal(await run(parent.id, "cat /root/file"), "after");
    await assertWhole(c.id);
    for (const { id } of [a, b, c]) await kill(id);
  });

  test("a later owner branches on", async () => {
    await daemon.crash();
    daemon = await startDaemon(data.path);
    await branch("three", "diff");
    const child = await spawnOne(client(), "three");
    await assertWhole(child.id);
    await kill(child.id);
  });
});
