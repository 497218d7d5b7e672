import assert from "node:assert/strict";
import { existsSync, readFileSync, statSync } from "node:fs";
import { mkdir, mkdtemp, readlink, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { jailDefaults } from "@forkd/host/engine/firecracker/jail.ts";
import { run } from "@forkd/host/lib/exec.ts";
import { isAlive, processesIn } from "@forkd/host/linux/proc.ts";
import { Guest } from "../../conformance/captured-guest.ts";
import { missing } from "../../helpers/capabilities.ts";
import { skipWithout } from "../../helpers/capability.ts";
import type { FakeFirecracker } from "../../helpers/fake-firecracker.ts";
import { type FirecrackerWorld, makeFirecrackerWorld } from "../../helpers/firecracker-guest.ts";
import { statusOf } from "../../helpers/process-status.ts";

const skip = skipWithout("root", "compiler", "guest-agent");
const noTun = missing({ devices: ["/dev/net/tun"], programs: ["ip", "nsenter"] });

/** Evals need an interpreter, which a jail has not: what is asked here is the agent itself. */
describe("jailed Firecrackers", { skip }, () => {
  let dir: string;
  let world: FirecrackerWorld;
  const jailed = (fake: FakeFirecracker, uidCount: number = jailDefaults.uidCount) =>
    fake.engine({ jail: { ...jailDefaults, uidCount } });

  before(async () => {
    dir = await mkdtemp(join(tmpdir(), "forkd-fcj-"));
    world = await makeFirecrackerWorld({ dir, engineOf: (fake) => jailed(fake) });
  });
  after(async () => {
    await world?.[Symbol.asyncDispose]();
    await rm(dir, { recursive: true, force: true });
  });

  const jailOf = (workDir: string): string => join(workDir, "jail/firecracker/vm/root");

  test("a child runs in a root of its own, as a user of its own, and answers", async () => {
    const [a, b] = [await Guest.open(world, world.frozen), await Guest.open(world, world.frozen)];
    const uids = [a, b].map(({ vm }) => statusOf(vm.process.pid, "Uid").split("\t"));
    for (const [index, guest] of [a, b].entries()) {
      const [uid = ""] = uids[index] ?? [];
      assert.deepEqual(uids[index], [uid, uid, uid, uid]);
      assert.ok(Number(uid) >= jailDefaults.uidFirst, uid);
      assert.equal(statusOf(guest.vm.process.pid, "Gid").split("\t")[0], `${jailDefaults.gid}`);
      assert.equal(statusOf(guest.vm.process.pid, "Groups").trim(), "");
      const root = await readlink(`/proc/${guest.vm.process.pid}/root`);
      assert.equal(root, jailOf(guest.workDir));
    }
    assert.notEqual(uids[0]?.[0], uids[1]?.[0]);
    await Promise.all([a.vm.stop(), b.vm.stop()]);
  });

  test("its command line keeps seccomp on and bounds its files", async () => {
    const { vm, workDir } = await Guest.restore(world, world.frozen);
    const limits = readFileSync(`/proc/${vm.process.pid}/limits`, "utf8");
    assert.match(limits, /^Max open files\s+1024\s+1024/m);
    const fileBytesMax = (world.machine.memoryMib + 64) * 1024 * 1024;
    assert.match(limits, new RegExp(`^Max file size\\s+${fileBytesMax}\\s`, "m"));
    const argv = readFileSync(`/proc/${vm.process.pid}/cmdline`, "utf8").split("\0");
    assert.equal(argv.includes("--no-seccomp"), false);
    assert.ok(existsSync(join(jailOf(workDir), "fc.sock")));
    await vm.stop();
  });

  test("what children share, they may read and not write", async () => {
    const { vm } = await Guest.restore(world, world.frozen);
    const { base } = world.frozen.memory;
    const { uid, gid, mode } = await stat(base);
    assert.deepEqual([uid, gid, mode & 0o777], [0, jailDefaults.gid, 0o640]);
    const before = statSync(base, { bigint: true }).ctimeNs;
    await vm.stop();
    const next = await Guest.restore(world, world.frozen);
    // The store knows by it that the file is as it was: the mode and the group are set once.
    assert.equal(statSync(base, { bigint: true }).ctimeNs, before);
    assert.deepEqual(await processesIn(next.workDir), [next.vm.process.pid]);
    await next.vm.stop();
  });

  test("a jailed child is captured, and its capture restored", async () => {
    const guest = await Guest.open(world, world.frozen);
    const { frozen } = await guest.capture();
    const again = await guest.capture({ all: true, durable: true });
    await guest.vm.stop();
    for (const from of [frozen, again.frozen]) {
      const child = await Guest.open(world, from);
      assert.equal((await child.session.hello).generation > 0, true);
      await child.vm.stop();
    }
  });

  test("a jailed child is adopted by an owner that never saw it, and keeps its user", async () => {
    const guest = await Guest.open(world, world.frozen);
    const other = jailed(world.fake);
    const spec = { process: guest.vm.process, workDir: guest.workDir };
    const adopted = await other.adopt(spec);
    const uid = Number(statusOf(guest.vm.process.pid, "Uid").split("\t")[0]);
    const next = await Guest.restore({ ...world, engine: other }, world.frozen);
    assert.notEqual(Number(statusOf(next.vm.process.pid, "Uid").split("\t")[0]), uid);
    await next.vm.stop();
    await adopted.stop();
    assert.equal(isAlive(guest.vm.process), false);
  });

  const netOf = (of: string): Promise<string> => readlink(`/proc/${of}/ns/net`);
  const tapOf = async (netns: string): Promise<string> => {
    const show = ["ip", "-details", "link", "show", "dev", "forkd-tap0"];
    const { stdout } = await run(["nsenter", `--net=${netns}`, ...show], { timeoutMs: 20_000 });
    return stdout;
  };

  test("a child's card is on the tap of its network, which it may open", {
    skip: noTun,
  }, async () => {
    const name = `forkd-fcj-${process.pid}`;
    await run(["ip", "netns", "add", name], { timeoutMs: 20_000 });
    try {
      const netns = `/run/netns/${name}`;
      const network = { netns, tap: "forkd-tap0" };
      const { vm } = await Guest.restore(world, world.frozen, { network });
      const [uid = ""] = statusOf(vm.process.pid, "Uid").split("\t");
      assert.equal((await stat(netns)).ino, (await stat(`/proc/${vm.process.pid}/ns/net`)).ino);
      assert.match(await tapOf(netns), new RegExp(`persist on user ${uid}\\b`));
      await assert.rejects(Guest.restore(world, world.frozen, { network }), {
        code: "engine_failed",
      });
      await vm.stop();
      const next = await Guest.restore(world, world.frozen, { network });
      await next.vm.stop();
    } finally {
      await run(["ip", "netns", "delete", name], { timeoutMs: 20_000 });
    }
  });

  test("a child without a network has its card where nothing else is", {
    skip: noTun,
  }, async () => {
    const { vm } = await Guest.restore(world, world.frozen);
    const { pid } = vm.process;
    assert.notEqual(await netOf(`${pid}`), await netOf("self"));
    const devices = readFileSync(`/proc/${pid}/net/dev`, "utf8").matchAll(/^ *(\S+):/gm);
    assert.deepEqual([...devices].map(([, device]) => device).sort(), ["forkd-tap0", "lo"]);
    await vm.stop();
  });

  test("without a free user no VM starts; one that ended gives its user back", async () => {
    const engine = jailed(world.fake, 1);
    const one = await Guest.restore({ ...world, engine }, world.frozen);
    const two = Guest.restore({ ...world, engine }, world.frozen);
    await assert.rejects(two, { code: "busy" });
    await one.vm.stop();
    const three = await Guest.restore({ ...world, engine }, world.frozen);
    await three.vm.stop();
  });

  test("without a jailer there is no engine that is to have one", async () => {
    const engine = world.fake.engine({
      find: async () => ({ firecracker: world.fake.binary, jailer: null }),
      jail: jailDefaults,
    });
    await assert.rejects(engine.version(), { code: "engine_unavailable", hint: /unjailed/ });
  });

  test("a jailer that refuses fails the start with its words, and frees the user", async () => {
    const jailer = join(dir, "no-jailer");
    await mkdir(jailer);
    const engine = world.fake.engine({
      find: async () => ({ firecracker: world.fake.binary, jailer }),
      jail: { ...jailDefaults, uidCount: 1 },
    });
    for (let attempt = 0; attempt < 2; attempt += 1) {
      const start = Guest.restore({ ...world, engine }, world.frozen);
      await assert.rejects(start, { code: "engine_failed" });
    }
  });
});
