import { mkdir, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { freeze, warm } from "@forkd/host/agent/guest.ts";
import { AgentSession, firstAttachToken } from "@forkd/host/agent/session.ts";
import type { Engine, Machine, Vm } from "@forkd/host/engine/engine.ts";
import type { FrozenGuest, GuestWorld } from "../conformance/captured-guest.ts";
import { FakeFirecracker } from "./fake-firecracker.ts";

const helloTimeoutMs = 20_000;
const memoryMib = 64;

/** A stand-in, an engine of it, and a frozen parent that children come from. */
export interface FirecrackerWorld extends GuestWorld, AsyncDisposable {
  readonly fake: FakeFirecracker;
  readonly machine: Machine;
  readonly frozen: FrozenGuest;
}

export interface WorldOptions {
  readonly dir: string;
  /** Null takes the stand-in's own, without a jail. */
  readonly engineOf?: (fake: FakeFirecracker) => Engine;
  /** Its guests have a scratch disk of that size, which holds nothing. */
  readonly scratchMib?: number;
}

/** Boots a parent of the stand-in and freezes it. */
export async function makeFirecrackerWorld(options: WorldOptions): Promise<FirecrackerWorld> {
  const { dir } = options;
  const fake = await FakeFirecracker.make(join(dir, "fake"));
  const engine = options.engineOf?.(fake) ?? fake.engine();
  const { kernel, rootImage } = await fake.bootFiles();
  const probe = await engine.probe(kernel);
  const machine = engine.machine(probe, { memoryMib, vcpus: 1 });
  const workDir = join(dir, "p");
  await mkdir(workDir);
  const base = join(dir, "memory.bin");
  const vmstateFile = join(dir, "vmstate");
  const scratch = await makeScratch(options);
  const vm = await engine.boot({
    workDir,
    machine,
    kernel,
    rootImage,
    memoryFile: base,
    upperMib: null,
    scratch: scratch === undefined ? null : { file: scratch, format: "raw" },
  });
  const channel = await vm.openChannel();
  const session = AgentSession.attach(channel, { token: firstAttachToken, helloTimeoutMs });
  await warm(session, {
    env: {},
    user: "",
    workdir: "",
    imports: [],
    command: null,
    ready: null,
    runtime: "python",
    timeoutMs: helloTimeoutMs,
  });
  await freeze(session, helloTimeoutMs);
  await vm.pause();
  await vm.saveState(vmstateFile);
  await vm.stop();
  const memory = { base, overlay: null };
  const vms: Vm[] = [];
  return {
    fake,
    engine,
    rootImage,
    dir,
    vms,
    machine,
    frozen: {
      machine,
      memory,
      vmstateFile,
      token: session.nextToken,
      ...(scratch !== undefined && { scratch }),
    },
    [Symbol.asyncDispose]: async () => {
      await Promise.all(vms.map((started) => started.stop()));
    },
  };
}

/** It says `begin` where a test may look whether that has stayed. */
async function makeScratch({ dir, scratchMib }: WorldOptions): Promise<string | undefined> {
  if (scratchMib === undefined) return undefined;
  const file = join(dir, "scratch.0");
  await writeFile(file, "begin");
  await truncate(file, scratchMib * 1024 * 1024);
  return file;
}
