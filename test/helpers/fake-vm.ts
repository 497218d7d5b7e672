import { PassThrough } from "node:stream";
import type { Vm, VmEnd } from "@forkd/host/engine/engine.ts";
import type { ProcessIdentity } from "@forkd/host/linux/proc.ts";

const noEnd: VmEnd = { stopped: false, exitCode: null, signal: null, guestOff: null, log: "" };

/** A VM without a machine: it lives until the test, or its owner, ends it. */
export class FakeVm implements Vm {
  readonly process: ProcessIdentity = { pid: 4_000_000, startTicks: 1, bootId: "a-boot" };
  readonly ended: Promise<VmEnd>;
  readonly scratch = { kind: "file" } as const;
  readonly keepsChannel = true;
  stops = 0;
  resumes = 0;
  /** A stop that has no effect: the process hangs in the kernel. */
  immortal = false;
  readonly #end: (end: VmEnd) => void;

  constructor() {
    const { promise, resolve } = Promise.withResolvers<VmEnd>();
    this.ended = promise;
    this.#end = resolve;
  }

  /** It ends by itself. */
  die(end: Partial<VmEnd> = {}): void {
    this.#end({ ...noEnd, ...end });
  }

  async stop(): Promise<VmEnd> {
    this.stops += 1;
    if (!this.immortal) this.#end({ ...noEnd, stopped: true, signal: "SIGKILL" });
    return await this.ended;
  }

  async resume(): Promise<void> {
    this.resumes += 1;
  }

  async openChannel() {
    return new PassThrough();
  }

  async pause(): Promise<void> {
    this.#refuse();
  }

  async saveState(): Promise<void> {
    this.#refuse();
  }

  async capture() {
    return this.#refuse();
  }

  #refuse(): never {
    throw new Error("a fake VM has no state");
  }
}
