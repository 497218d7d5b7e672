import assert from "node:assert/strict";
import { mkdir, readFile, rm, stat, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { evaluate } from "@forkd/host/agent/evals.ts";
import { freeze, identify, ping, warm } from "@forkd/host/agent/guest.ts";
import { AgentSession, firstAttachToken } from "@forkd/host/agent/session.ts";
import type {
  BootKernel,
  Engine,
  Machine,
  RestoredVm,
  RestoreSpec,
  Vm,
} from "@forkd/host/engine/engine.ts";
import { makeParentScratch } from "@forkd/host/fork/scratch.ts";
import { ChannelReset } from "@forkd/host/lib/channel-reset.ts";
import { sha256File } from "@forkd/host/lib/hash.ts";
import { findProcess, isAlive } from "@forkd/host/linux/proc.ts";
import { childPids } from "../helpers/child-pids.ts";
import { type DiskWords, diskTurn, type FrozenDisk, linuxDisk, scratchOf } from "./disk-turn.ts";

export interface EngineSubject {
  readonly engine: Engine;
  readonly kernel: BootKernel;
  /** A root image with python3. */
  readonly rootImage: string;
  /** An empty directory with a short path. */
  readonly dir: string;
  /** How its guests use their disk; a Linux's own way when absent. */
  readonly disk?: DiskWords;
}

const helloTimeoutMs = 120_000;
const memoryMib = 256;
const scratchMib = 64;

/** The contract of engine/engine.ts, as tests. One parent is frozen, all children come from it. */
export function engineConformance(name: string, makeSubject: () => Promise<EngineSubject>): void {
  describe(`engine ${name}`, () => {
    const vms: Vm[] = [];
    let subject: EngineSubject;
    let machine: Machine;
    let token: Buffer;
    let children = 0;

    before(async () => {
      subject = await makeSubject();
    });
    after(async () => {
      await Promise.all(vms.map((vm) => vm.stop()));
    });

    const workDirs = new Map<number, string>();
    const workDirOf = (vm: Vm): string => workDirs.get(vm.process.pid) ?? assert.fail();

    const newWorkDir = async (): Promise<string> => {
      children += 1;
      const workDir = join(subject.dir, `c${children}`);
      await mkdir(workDir);
      return workDir;
    };
    const frozen = {
      memoryFile: (): string => join(subject.dir, "memory.bin"),
      vmstateFile: (): string => join(subject.dir, "vmstate"),
    };
    const frozenDisk = (): FrozenDisk => ({
      sizeMib: scratchMib,
      layers: [{ file: join(subject.dir, "scratch.0"), format: "raw" }],
    });
    const restore = async (
      changes: Partial<RestoreSpec> = {},
      disk = frozenDisk(),
    ): Promise<RestoredVm> => {
      const workDir = await newWorkDir();
      const vm = await subject.engine.restore({
        workDir,
        machine,
        rootImage: subject.rootImage,
        memory: { base: frozen.memoryFile(), overlay: null },
        vmstateFile: frozen.vmstateFile(),
        scratch: scratchOf(disk, subject.engine.scratch, workDir),
        dieWithParent: true,
        cgroups: [],
        network: null,
        ...changes,
      });
      vms.push(vm);
      workDirs.set(vm.process.pid, workDir);
      return vm;
    };
    const attach = async (vm: Vm, listensFor = token): Promise<AgentSession> =>
      AgentSession.attach(await vm.openChannel(), { token: listensFor, helloTimeoutMs });
    const open = async (vm: Vm, hostname: string, listensFor = token): Promise<AgentSession> => {
      const session = await attach(vm, listensFor);
      await vm.resume();
      await identify(
        session,
        { generation: 1, hostname, machineId: "1".repeat(32), net: null },
        helloTimeoutMs,
      );
      return session;
    };
    const value = async (session: AgentSession, code: string): Promise<string | null> =>
      (await evaluate(session, { code, timeout_secs: 60 })).result;

    /** What was asked in a pause is answered, or ends with the channel, and another one works. */
    const goesOn = async (vm: Vm, { session, answer, resume }: Pause): Promise<void> => {
      const settled = answer.then(
        ({ pong }) => assert.ok(pong && vm.keepsChannel),
        (error: unknown) => assert.ok(error instanceof ChannelReset && !vm.keepsChannel),
      );
      await resume();
      await settled;
      if (vm.keepsChannel) return;
      const next = await attach(vm, session.nextToken);
      assert.equal((await ping(next, 60_000)).pong, true);
    };

    test("probes its version, how guests run here, and why", async () => {
      const probe = await subject.engine.probe(subject.kernel);
      assert.equal(probe.engine, subject.engine.name);
      assert.equal(probe.version, await subject.engine.version());
      assert.equal(probe.isolation, probe.accel === "kvm" ? "vm" : "vm-emulated");
      assert.ok(probe.reasons.length > 0);
      machine = subject.engine.machine(probe, { memoryMib, vcpus: 1 });
    });

    test("boots a parent, freezes it, and leaves no process", async (t) => {
      const vm = await subject.engine.boot({
        workDir: await newWorkDir(),
        machine,
        kernel: subject.kernel,
        rootImage: subject.rootImage,
        memoryFile: frozen.memoryFile(),
        upperMib: null,
        scratch: await makeParentScratch(subject.dir, scratchMib, t.signal),
      });
      vms.push(vm);
      token = firstAttachToken;
      const session = await attach(vm);
      assert.equal((await session.hello).protocol, 1);
      const spec = { env: {}, user: "", workdir: "", imports: [], command: null, ready: null };
      await warm(session, { ...spec, runtime: "python", timeoutMs: helloTimeoutMs });
      await freeze(session, helloTimeoutMs);
      await vm.pause();
      await vm.saveState(frozen.vmstateFile());
      token = session.nextToken;
      const end = await vm.stop();
      assert.equal(end.stopped, true);
      assert.equal(findProcess(vm.process.pid), undefined);
      assert.equal((await stat(frozen.memoryFile())).size, memoryMib * 1024 * 1024);
      assert.ok((await stat(frozen.vmstateFile())).size > 0);
    });

    test("a restored child is paused until it is resumed", async () => {
      const vm = await restore();
      assert.ok(isAlive(vm.process));
      const session = await attach(vm);
      const early = Promise.race([session.hello.then(() => "spoke"), pause(300)]);
      assert.equal(await early, "silent");
      await vm.resume();
      assert.equal((await session.hello).gate, "closed");
      await vm.stop();
    });

    test("the gate stays closed until the identity is given", async () => {
      const vm = await restore();
      const session = await attach(vm);
      await vm.resume();
      const refused = evaluate(session, { code: "1", timeout_secs: 10 });
      await assert.rejects(refused, { agentCode: "gate_closed" });
      await vm.stop();
    });

    test("children share nothing that they write, and the image stays as it was", async () => {
      const digest = await sha256File(frozen.memoryFile());
      const [a, b] = [await restore(), await restore()];
      const [left, right] = [await open(a, "left"), await open(b, "right")];
      await value(left, "x = bytearray(b'l' * 4_000_000)");
      await value(right, "x = bytearray(b'r' * 4_000_000)");
      assert.equal(await value(left, "x.count(b'l'[0])"), "4000000");
      assert.equal(await value(right, "x.count(b'r'[0])"), "4000000");
      assert.equal(await value(left, "__import__('socket').gethostname()"), "'left'");
      assert.equal(await value(right, "__import__('socket').gethostname()"), "'right'");
      const draw = "__import__('os').urandom(16).hex()";
      assert.notEqual(await value(left, draw), await value(right, draw));
      await Promise.all([a.stop(), b.stop()]);
      assert.equal(await sha256File(frozen.memoryFile()), digest);
    });

    test("a disk is a child's own, a capture holds its instant, and the frozen one stays", async () => {
      const { write, read } = subject.disk ?? linuxDisk;
      const word = async (session: AgentSession): Promise<string | undefined> =>
        (await value(session, read))?.replaceAll(/['.]/g, "");
      const [layer = assert.fail()] = frozenDisk().layers;
      const digest = await sha256File(layer.file);
      const [a, b] = [await restore(), await restore()];
      const [left, right] = [await open(a, "left"), await open(b, "right")];
      await value(left, write("left"));
      await value(right, write("right"));
      assert.deepEqual([await word(left), await word(right)], ["left", "right"]);
      const turn = await diskTurn(a, frozenDisk(), workDirOf(a));
      const { files, memory } = captureFiles(workDirOf(a), frozen.memoryFile());
      await a.capture({
        mode: "stopped",
        all: false,
        image: { base: frozen.memoryFile(), overlay: null },
        files,
        disks: turn.disks,
        maxPauseMs: null,
        durable: false,
        beforeStop: async () => undefined,
        afterResume: async () => undefined,
        onPivot: () => undefined,
      });
      const again = a.keepsChannel ? left : await attach(a, left.nextToken);
      await value(again, write("after"));
      const child = await restore({ vmstateFile: files.vmstate, memory }, turn.frozen);
      const grown = await open(child, "child", left.nextToken);
      assert.deepEqual([await word(grown), await word(again)], ["left", "after"]);
      await Promise.all([a, b, child].map((vm) => vm.stop()));
      assert.equal(await sha256File(layer.file), digest);
    });

    test("a paused guest does not answer, a resumed one goes on", async () => {
      const vm = await restore();
      const session = await open(vm, "p");
      await vm.pause();
      await vm.pause();
      const answer = ping(session, 60_000);
      assert.equal(await Promise.race([answer, pause(300)]), "silent");
      await goesOn(vm, { session, answer, resume: () => vm.resume() });
      await vm.stop();
    });

    test("a second session to a guest that runs on takes over from the first", async () => {
      const vm = await restore();
      const first = await open(vm, "s");
      await value(first, "kept = 41");
      first.close();
      const second = await attach(vm, first.nextToken);
      assert.equal((await second.hello).gate, "open");
      assert.equal(await value(second, "kept + 1"), "42");
      await vm.stop();
    });

    test("a VMM that is killed is noticed, and stop after it is harmless", async () => {
      const vm = await restore();
      process.kill(vm.process.pid, "SIGKILL");
      const end = await vm.ended;
      assert.equal(end.stopped, false);
      assert.equal(end.signal, "SIGKILL");
      await vm.stop();
      await assert.rejects(vm.resume(), { code: "engine_failed" });
    });

    test("a running VM is adopted by its process and directory, and works on", async () => {
      const vm = await restore();
      const session = await open(vm, "a");
      await value(session, "kept = 6");
      session.close();
      const adopted = await subject.engine.adopt({ process: vm.process, workDir: workDirOf(vm) });
      const again = await attach(adopted, session.nextToken);
      assert.equal(await value(again, "kept * 7"), "42");
      await adopted.pause();
      const answer = ping(again, 60_000);
      assert.equal(await Promise.race([answer, pause(300)]), "silent");
      await goesOn(adopted, { session: again, answer, resume: () => adopted.resume() });
      const end = await adopted.stop();
      assert.equal(end.stopped, true);
      assert.equal(isAlive(vm.process), false);
      assert.equal((await vm.ended).stopped, false);
    });

    test("an adopted VM that dies is noticed; one that is gone cannot be adopted", async () => {
      const vm = await restore();
      const spec = { process: vm.process, workDir: workDirOf(vm) };
      const adopted = await subject.engine.adopt(spec);
      process.kill(vm.process.pid, "SIGKILL");
      assert.equal((await adopted.ended).stopped, false);
      await vm.ended;
      await assert.rejects(subject.engine.adopt(spec), { code: "engine_failed" });
      const other = { ...vm.process, startTicks: vm.process.startTicks + 1 };
      const impostor = { process: other, workDir: spec.workDir };
      await assert.rejects(subject.engine.adopt(impostor), { code: "engine_failed" });
    });

    test("a broken state file is refused and leaves no process", async () => {
      const cut = join(subject.dir, "cut");
      await writeFile(cut, await readFile(frozen.vmstateFile()));
      await truncate(cut, 1000);
      const before = childPids();
      await assert.rejects(restore({ vmstateFile: cut }), { code: "engine_failed" });
      assert.deepEqual(childPids(), before);
    });

    test("a restore that is not wanted any more leaves no process", async () => {
      const before = childPids();
      const unwanted = new Error("not wanted any more");
      const signal = AbortSignal.abort(unwanted);
      await assert.rejects(restore({ signal }), unwanted);
      assert.deepEqual(childPids(), before);
    });

    test("a kernel that is none is refused and leaves no process", async () => {
      const bogus = join(subject.dir, "bogus");
      await writeFile(bogus, "not a kernel");
      const before = childPids();
      const memoryFile = join(subject.dir, "other-memory");
      const boot = subject.engine.boot({
        workDir: await newWorkDir(),
        machine,
        kernel: { vmlinuz: bogus, initrd: bogus },
        rootImage: subject.rootImage,
        memoryFile,
        upperMib: null,
        scratch: null,
      });
      await assert.rejects(boot, { code: "engine_failed" });
      assert.deepEqual(childPids(), before);
      await rm(memoryFile);
    });
  });
}

function captureFiles(workDir: string, base: string) {
  const file = (name: string): string => join(workDir, `captured-${name}`);
  const files = { vmstate: file("vmstate"), pages: file("pages"), extents: file("extents") };
  const overlay = { file: files.pages, extents: files.extents };
  return { files, memory: { base, overlay } };
}

interface Pause {
  readonly session: AgentSession;
  readonly answer: ReturnType<typeof ping>;
  readonly resume: () => Promise<void>;
}

function pause(ms: number): Promise<"silent"> {
  return new Promise((resolve) => setTimeout(() => resolve("silent"), ms));
}
