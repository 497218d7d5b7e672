import assert from "node:assert/strict";
import { join } from "node:path";
import { after, before, describe, type TestContext, test } from "node:test";
import { type SandboxInfo, sandboxInfoSchema } from "@forkd/api";
import { z } from "zod";
import { staticBusybox } from "../helpers/capabilities.ts";
import { skipWithout } from "../helpers/capability.ts";
import { bakeSmall } from "../helpers/small-snapshot.ts";
import {
  call,
  installed,
  loadProgram,
  prepareController,
  slow,
  startController,
} from "../helpers/system-controller.ts";
import { skipWithoutSystemImage } from "../helpers/system-image.ts";
import { bootSystem, checkoutFiles, type SystemVm } from "../helpers/system-vm.ts";

/** It compares times, which a busy machine can spoil, and takes seven minutes. */
const asked =
  process.env["FORKD_TEST_SYSTEM"] === "1" ? false : "is run by itself: npm run test:system";
const skip =
  asked ||
  skipWithoutSystemImage() ||
  skipWithout("root", "qemu", "guest-agent") ||
  (staticBusybox() === undefined && "needs a static busybox (apt-get install busybox-static)");

const limits = {
  memory_limit_mib: 64,
  cpu_limit: 0.5,
  pids_limit: 128,
  io_read_bps: 50_000_000,
  io_write_bps: 20_000_000,
} as const;
/** The siblings' own time is not bounded: it is what is measured. */
const siblingLimits = { ...limits, cpu_limit: null };
const tag = "small";
const load = `python3 ${loadProgram}`;
/** A short measurement on a busy machine may be unlucky; isolation that is not there stays away. */
const attemptsMax = 3;
const latencyFactorMax = 2;

/**
 * The whole product on a Debian with systemd and cgroup v2, which the host need not be: forkd
 * restores guests inside an emulated machine. What is slow there is slow for all, so latencies are
 * compared with each other, within one run.
 */
describe("limits by cgroup v2 under systemd", { skip }, () => {
  let vm: SystemVm;
  let children: SandboxInfo[];
  const stack = new AsyncDisposableStack();

  before(async () => {
    const snapshot = stack.use(await bakeSmall(tag));
    const files = {
      ...checkoutFiles(),
      ...snapshot.files,
      "fork-load.py": join(import.meta.dirname, "../helpers/fork-load.py"),
    };
    vm = stack.use(await bootSystem({ memoryMib: 1536, files }));
    await prepareController(vm);
    await startController(vm);
    children = [...(await spawn(vm, 1, limits)), ...(await spawn(vm, 2, siblingLimits))];
    const siblings = children.slice(1).map(({ id }) => id);
    await vm.ok([load, "warm", ...siblings].join(" "), slow);
  });
  after(() => stack[Symbol.asyncDispose]());

  const ids = () => children.map(({ id }) => id);
  const groupOf = async (id: string): Promise<string> =>
    (await vm.ok(`ls -d /sys/fs/cgroup/forkd/*/${id}`)).trim();

  test("every limit is in force", async () => {
    for (const [index, child] of children.entries()) {
      const wanted = index === 0 ? limits : siblingLimits;
      assert.deepEqual(child.limits, { ...wanted, not_in_force: [] });
    }
    const [first = ""] = ids();
    const files = ["memory.max", "memory.swap.max", "cpu.max", "pids.max", "cgroup.procs"];
    const group = await groupOf(first);
    const read = await vm.ok(`cd ${group} && cat ${files.join(" ")}`);
    // Debian's kernel has swap, so that is bounded too.
    const expected = [64 * 1024 * 1024, 0, "50000 100000", 128, children[0]?.pid];
    assert.deepEqual(read.trim().split("\n"), expected.map(String));
    assert.match(await vm.ok(`cat ${group}/io.max`), /rbps=50000000 wbps=20000000/);
  });

  test("the operator's files count all sandboxes", async () => {
    assert.ok(Number(await vm.ok("cat /sys/fs/cgroup/forkd/memory.current")) > 1_000_000);
    assert.match(await vm.ok("cat /sys/fs/cgroup/forkd/memory.events"), /^oom_kill 0$/m);
  });

  const isolated = async (t: TestContext, hog: string): Promise<void> => {
    for (let attempt = 1; ; attempt += 1) {
      const { factor, lasted } = await measure(t, vm, { verb: "load", hog, ids: ids() });
      if (factor <= latencyFactorMax && lasted) return;
      assert.ok(attempt < attemptsMax, `execs in the siblings take ${factor.toFixed(2)}x the time`);
    }
  };

  test("a processor hog leaves its siblings their latency", async (t) => {
    const group = await groupOf(ids()[0] ?? "");
    const throttled = async (): Promise<number> =>
      Number(/^nr_throttled (\d+)$/m.exec(await vm.ok(`cat ${group}/cpu.stat`))?.[1]);
    const earlier = await throttled();
    await isolated(t, "while :; do :; done");
    assert.ok((await throttled()) > earlier, "the hog ran into its limit");
  });

  test("a fork bomb leaves its siblings their latency", (t) => isolated(t, "f() { f & f; }; f"));

  test("a memory hog leaves its siblings their latency, and is killed for it", async (t) => {
    for (let attempt = 1; ; attempt += 1) {
      const { factor } = await measure(t, vm, {
        verb: "load-to-end",
        hog: "tail /dev/zero",
        ids: ids(),
      });
      const [dead = "", ...siblings] = ids();
      const { state, end } = await inspect(vm, dead);
      assert.deepEqual([state, end?.reason], ["ended", "oom"], end?.detail);
      if (factor <= latencyFactorMax) return;
      assert.ok(attempt < attemptsMax, `execs in the siblings take ${factor.toFixed(2)}x the time`);
      const [next] = await spawn(vm, 1, limits);
      assert.ok(next !== undefined);
      children = [next, ...children.filter(({ id }) => siblings.includes(id))];
    }
  });

  test("nothing is left of them", async () => {
    for (const id of ids().slice(1)) {
      const { status } = await call(vm, `DELETE /v1/sandboxes/${id}`);
      assert.equal(status, 204);
    }
    assert.equal(await vm.ok("find /sys/fs/cgroup/forkd -name 'sb-*'"), "");
    const { env, dataDir, forkd } = installed;
    const leaks = await vm.run(`env ${env.join(" ")} FORKD_DATA_DIR=${dataDir} ${forkd} leaks`);
    assert.deepEqual([leaks.stdout, leaks.code], ["", 0], leaks.stderr);
  });
});

async function spawn(vm: SystemVm, n: number, asked: object): Promise<SandboxInfo[]> {
  const { status, body } = await call(vm, "POST /v1/sandboxes", {
    ...{ snapshot_tag: tag, n, require_limits: true },
    ...asked,
  });
  assert.equal(status, 201, JSON.stringify(body));
  return z.array(sandboxInfoSchema).parse(body);
}

async function inspect(vm: SystemVm, id: string): Promise<SandboxInfo> {
  return sandboxInfoSchema.parse((await call(vm, `GET /v1/sandboxes/${id}`)).body);
}

const measuredSchema = z.object({
  without: z.array(z.number()).nonempty(),
  beside: z.array(z.number()).nonempty(),
  lasted: z.boolean(),
});

interface Order {
  readonly verb: "load" | "load-to-end";
  /** A shell command for the first of the sandboxes. */
  readonly hog: string;
  readonly ids: readonly string[];
}

/** `factor`: the median latency of an exec in a sibling beside the hog, over the one without it. */
async function measure(
  t: TestContext,
  vm: SystemVm,
  { verb, hog, ids }: Order,
): Promise<{ readonly factor: number; readonly lasted: boolean }> {
  const [first, ...siblings] = ids;
  const words = [load, verb, first, `'${hog}'`, ...siblings];
  const text = await vm.ok(words.join(" "), slow);
  const { without, beside, lasted } = measuredSchema.parse(JSON.parse(text));
  const factor = median(beside) / median(without);
  const ms = (seconds: number): number => Math.round(seconds * 1000);
  t.diagnostic(
    `${hog}: median exec ${ms(median(without))} ms without, ${ms(median(beside))} ms beside it ` +
      `(${factor.toFixed(2)}x); without ${without.map(ms)}; beside ${beside.map(ms)}`,
  );
  return { factor, lasted };
}

function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  const upper = sorted[middle] ?? 0;
  return sorted.length % 2 === 1 ? upper : (upper + (sorted[middle - 1] ?? 0)) / 2;
}
