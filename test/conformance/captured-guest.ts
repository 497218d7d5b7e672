import assert from "node:assert/strict";
import { mkdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { evaluate } from "@forkd/host/agent/evals.ts";
import { identify } from "@forkd/host/agent/guest.ts";
import { AgentSession } from "@forkd/host/agent/session.ts";
import type {
  CaptureResult,
  CaptureSpec,
  DiskCapture,
  Engine,
  Machine,
  MemoryImage,
  RestoreSpec,
  Vm,
} from "@forkd/host/engine/engine.ts";
import { ChannelReset } from "@forkd/host/lib/channel-reset.ts";

const helloTimeoutMs = 120_000;

/** What a VM can be restored from, with the token that its agent waits for. */
export interface FrozenGuest {
  readonly machine: Machine;
  readonly memory: MemoryImage;
  readonly vmstateFile: string;
  readonly token: Buffer;
  /** Of an engine whose scratch disks are files: the frozen one. */
  readonly scratch?: string;
}

export interface GuestWorld {
  readonly engine: Engine;
  readonly rootImage: string;
  /** An empty directory with a short path. */
  readonly dir: string;
  /** Every VM that was started, to be stopped in the end. */
  readonly vms: Vm[];
}

let directories = 0;
let generations = 1000;

async function newDir(world: GuestWorld): Promise<string> {
  directories += 1;
  const dir = join(world.dir, `g${directories}`);
  await mkdir(dir);
  return dir;
}

/** A running guest of a frozen one, that can be asked and captured. */
export class Guest {
  readonly vm: Vm;
  /** Another one after a capture that ended it. */
  session: AgentSession;
  readonly workDir: string;
  readonly from: FrozenGuest;
  readonly #world: GuestWorld;

  private constructor(
    world: GuestWorld,
    parts: { from: FrozenGuest; vm: Vm; session: AgentSession; workDir: string },
  ) {
    this.#world = world;
    this.from = parts.from;
    this.vm = parts.vm;
    this.session = parts.session;
    this.workDir = parts.workDir;
  }

  /** Restores a VM, which is paused. */
  static async restore(world: GuestWorld, from: FrozenGuest, changes: Partial<RestoreSpec> = {}) {
    const workDir = await newDir(world);
    const { machine, memory, vmstateFile, scratch } = from;
    const vm = await world.engine.restore({
      workDir,
      machine,
      rootImage: world.rootImage,
      memory,
      vmstateFile,
      scratch: scratch === undefined ? null : { kind: "file", frozen: scratch },
      dieWithParent: true,
      cgroups: [],
      network: null,
      ...changes,
    });
    world.vms.push(vm);
    return { vm, workDir };
  }

  /** Restores a VM and gives it an identity. */
  static async open(world: GuestWorld, from: FrozenGuest): Promise<Guest> {
    const { vm, workDir } = await Guest.restore(world, from);
    const session = await AgentSession.attach(await vm.openChannel(), {
      token: from.token,
      helloTimeoutMs,
    });
    await vm.resume();
    generations += 1;
    const identity = {
      generation: generations,
      hostname: "g",
      machineId: "1".repeat(32),
      net: null,
    };
    await identify(session, identity, helloTimeoutMs);
    return new Guest(world, { from, vm, session, workDir });
  }

  /** Runs Python and gives the value as Python writes it. */
  async value(code: string): Promise<string | null> {
    await this.attachAgain();
    const answer = await evaluate(this.session, { code, timeout_secs: 60 });
    assert.equal(answer.error, null, `the guest's Python failed: ${answer.error}`);
    return answer.result;
  }

  /** The same guest with another VM handle, such as an adopted one. */
  with(vm: Vm): Guest {
    return new Guest(this.#world, { ...this, vm });
  }

  /** A spec of a capture into files of its own, which do not exist yet. */
  async captureSpec(changes: Partial<CaptureSpec> = {}): Promise<CaptureSpec> {
    const dir = await newDir(this.#world);
    const file = (name: string): string => join(dir, name);
    return {
      mode: "stopped",
      all: false,
      image: this.from.memory,
      files: { vmstate: file("vmstate"), pages: file("pages"), extents: file("extents") },
      disks: await this.#copiesTo(file("scratch")),
      maxPauseMs: null,
      durable: false,
      beforeStop: async () => undefined,
      afterResume: async () => undefined,
      onPivot: () => undefined,
      ...changes,
    };
  }

  /** Its disk is captured by a copy, if it has one. */
  async #copiesTo(to: string): Promise<readonly DiskCapture[]> {
    const { scratch } = this.from;
    if (scratch === undefined) return [];
    return [{ kind: "copy", to, bytes: (await stat(scratch)).size }];
  }

  /** Another session where the engine has ended the one that there was. */
  async attachAgain(): Promise<void> {
    if (this.session.failure === undefined) return;
    assert.ok(this.session.failure instanceof ChannelReset, `${this.session.failure}`);
    await this.attach();
  }

  /** A session that takes over from the one before. */
  async attach(): Promise<void> {
    const token = this.session.nextToken;
    const channel = await this.vm.openChannel();
    this.session = AgentSession.attach(channel, { token, helloTimeoutMs });
    await this.session.hello;
  }

  /** Captures, and gives what the result can be restored from. */
  async capture(changes: Partial<CaptureSpec> = {}): Promise<Captured> {
    const spec = await this.captureSpec(changes);
    const token = this.session.nextToken;
    const result = await this.vm.capture(spec);
    await this.attachAgain();
    const { vmstate, pages, extents } = spec.files;
    const memory = spec.all
      ? { base: pages, overlay: null }
      : { base: baseOf(this.from.memory), overlay: { file: pages, extents } };
    const [disk] = spec.disks;
    const scratch = disk?.kind === "copy" ? { scratch: disk.to } : {};
    const { machine } = this.from;
    return { result, frozen: { machine, memory, vmstateFile: vmstate, token, ...scratch } };
  }
}

export interface Captured {
  readonly result: CaptureResult;
  readonly frozen: FrozenGuest;
}

/** A layer lies over an image without layers; a test that has more puts them together itself. */
function baseOf(memory: MemoryImage): string {
  assert.equal(memory.overlay, null, "this guest's image has an overlay already");
  return memory.base;
}
