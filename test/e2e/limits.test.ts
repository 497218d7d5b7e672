import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { after, before, describe, test } from "node:test";
import { type SandboxInfo, type SandboxLimits, toForkdError } from "@forkd/api";
import { type Baked, ensureBaked } from "../helpers/baked.ts";
import { skipWithout } from "../helpers/capability.ts";
import { forkd } from "../helpers/cli.ts";
import { startDaemon, type TestDaemon } from "../helpers/daemon.ts";
import { type DataDir, makeDataDir } from "../helpers/data-dir.ts";
import { eventually } from "../helpers/eventually.ts";

const asked = {
  memory_limit_mib: 192,
  cpu_limit: 0.75,
  pids_limit: 128,
  io_read_bps: 64 * 1024 * 1024,
  io_write_bps: 64 * 1024 * 1024,
} as const;
const names = Object.keys(asked) as (keyof typeof asked)[];

/** On this host as it is: cgroup v1, v2, or none, each as far as it goes. */
describe("limits on this host", { skip: skipWithout("root", "qemu", "guest-agent") }, () => {
  let baked: Baked;
  let dir: DataDir;
  let daemon: TestDaemon;
  let enforced: ReadonlySet<string>;
  let child: SandboxInfo;

  before(async () => {
    baked = await ensureBaked();
    dir = await makeDataDir("limits", baked);
    daemon = await startDaemon(dir.path);
    enforced = await readEnforced(daemon);
  });
  after(async () => {
    await daemon?.killAll();
    await dir?.[Symbol.asyncDispose]();
  });

  const spawn = async (limits: object): Promise<SandboxInfo> => {
    const body = { snapshot_tag: baked.tag, n: 1, ...limits };
    const [info] = await daemon.client.createSandboxes({ body });
    return info ?? assert.fail();
  };

  test("each limit that was asked for is in force, or has a reason why not", async (t) => {
    child = await spawn(asked);
    t.diagnostic(JSON.stringify(child.limits));
    for (const name of names) {
      const missing = child.limits.not_in_force.find(({ limit }) => limit === name);
      assert.equal(child.limits[name], enforced.has(name) ? asked[name] : null, name);
      assert.equal(missing === undefined, enforced.has(name), name);
      if (missing !== undefined) assert.match(missing.reason, /\w+ \w+/);
    }
    assert.equal(child.memory_limit_mib, child.limits.memory_limit_mib);
  });

  test("the VMM is in groups of its own name, and every thread of it", async () => {
    const groups = await readFile(`/proc/${child.pid}/cgroup`, "utf8");
    assert.equal(groups.includes(`/${child.id}\n`), enforced.size > 0, groups);
  });

  test("without a word about limits there is one on threads, and no other", async () => {
    const { limits, id } = await spawn({});
    const { pids_limit: pids, ...others } = limits;
    assert.equal(pids, enforced.has("pids_limit") ? 256 : null);
    assert.deepEqual(others, { ...withoutLimits, not_in_force: [] });
    await daemon.client.deleteSandbox({ params: { id } });
  });

  test("a limit that is required and cannot be had refuses the spawn", async (t) => {
    const lacking = names.find((name) => !enforced.has(name));
    if (lacking === undefined) return t.skip("this host enforces every limit");
    const before = (await daemon.client.listSandboxes()).length;
    await assert.rejects(spawn({ [lacking]: asked[lacking], require_limits: true }), (error) => {
      const problem = toForkdError(error);
      assert.equal(problem.code, "limit_unavailable");
      assert.match(problem.message, new RegExp(`${lacking} ${asked[lacking]} cannot be enforced`));
      return true;
    });
    assert.equal((await daemon.client.listSandboxes()).length, before);
  });

  test("limits that can all be had may be required", async () => {
    const wanted = Object.fromEntries([...enforced].map((name) => [name, asked[nameOf(name)]]));
    const { limits, id } = await spawn({ ...wanted, require_limits: true });
    assert.deepEqual(limits.not_in_force, []);
    await daemon.client.deleteSandbox({ params: { id } });
  });

  test("the next daemon tells the same limits, read back again", async () => {
    await daemon.crash();
    daemon = await startDaemon(dir.path);
    const { limits } = await daemon.client.getSandbox({ params: { id: child.id } });
    assert.deepEqual(limits, child.limits);
  });

  test("a guest that eats over its memory ends, and the end says why", async (t) => {
    if (!enforced.has("memory_limit_mib")) return t.skip("this host does not bound memory");
    const params = { id: child.id };
    const hog = { code: "b = bytearray(400 * 1024 * 1024)", timeout_secs: 60 };
    await assert.rejects(daemon.client.evalSandbox({ params, body: hog }));
    const { state, end } = await eventually(async () => {
      const info = await daemon.client.getSandbox({ params });
      assert.equal(info.state, "ended");
      return info;
    });
    assert.deepEqual([state, end?.reason], ["ended", "oom"]);
    assert.match(end?.detail ?? "", /192 MiB/);
  });

  test("a limit in which no VM starts fails the spawn, and says so", async (t) => {
    if (!enforced.has("memory_limit_mib")) return t.skip("this host does not bound memory");
    await assert.rejects(spawn({ memory_limit_mib: 8 }), { code: "out_of_memory" });
  });

  test("the command line asks for the same limits, and prints what is in force", async () => {
    const limits = ["--memory-limit-mib", "192", "--cpus", "0.75", "--io-write-bps", "67108864"];
    const run = await forkd(
      ["fork", "--tag", baked.tag, "-n", "1", "--settle-secs", "0", "--json", ...limits],
      { dataDir: dir.path },
    );
    assert.equal(run.code, 0, run.stderr);
    // The shape is the command's own; the limits in it are checked field by field.
    const { children } = JSON.parse(run.stdout) as { children: { limits: SandboxLimits }[] };
    const told = children[0]?.limits ?? assert.fail();
    for (const name of ["memory_limit_mib", "cpu_limit", "io_write_bps"] as const) {
      assert.equal(told[name], enforced.has(name) ? asked[name] : null, name);
    }
  });

  test("nothing is left of any of them", async () => {
    assert.equal(await daemon.killAll(), 0);
    await dir.assertNothingLeft();
    const leaks = await forkd(["leaks"], { dataDir: dir.path });
    assert.deepEqual([leaks.stdout, leaks.code], ["", 0]);
  });
});

const withoutLimits = {
  memory_limit_mib: null,
  cpu_limit: null,
  io_read_bps: null,
  io_write_bps: null,
};

function nameOf(text: string): keyof typeof asked {
  return names.find((name) => name === text) ?? assert.fail(text);
}

/** What the daemon's metric says of this host. */
async function readEnforced({ url, token }: TestDaemon): Promise<ReadonlySet<string>> {
  const response = await fetch(`${url}/metrics`, { headers: { authorization: `Bearer ${token}` } });
  const pattern = /^forkd_limits_enforced\{controller="[a-z]+",limit="([a-z_]+)"\} ([01])$/gm;
  const lines = [...(await response.text()).matchAll(pattern)];
  assert.deepEqual(lines.map(([, name]) => name).toSorted(), [...names].toSorted());
  return new Set(lines.flatMap(([, name, value]) => (value === "1" ? (name ?? []) : [])));
}
