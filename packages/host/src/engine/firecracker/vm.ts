import { join } from "node:path";
import type { Duplex } from "node:stream";
import { ForkdError } from "@forkd/api";
import { ChannelReset } from "../../lib/channel-reset.ts";
import { sleep } from "../../lib/deadline.ts";
import type { ProcessIdentity } from "../../linux/proc.ts";
import type {
  BootedVm,
  CaptureResult,
  CaptureSpec,
  FileScratch,
  RestoredVm,
  RestoreTimings,
  VmEnd,
} from "../engine.ts";
import type { VmProcess } from "../process.ts";
import { type FirecrackerApi, FirecrackerRefusal } from "./api.ts";
import { captureFirecracker } from "./capture.ts";
import { VsockChannel } from "./channel.ts";
import { agentPort, vmFiles } from "./files.ts";
import type { FirecrackerHost } from "./host.ts";
import type { VmJournal } from "./journal.ts";
import { type BootedFiles, saveBooted, saveRestored, sendReset } from "./save.ts";

/** From the break of its API to the event of its end. */
const deathSeenMs = 300;

export interface FirecrackerVmParts {
  readonly host: FirecrackerHost;
  readonly process: VmProcess;
  readonly api: FirecrackerApi;
  readonly journal: VmJournal;
  readonly timings: RestoreTimings;
  readonly consoleTail: () => string;
  /** A parent: where RAM and disk go when its state is saved, and when its agent listens. */
  readonly booted: (BootedFiles & { readonly ready: Promise<void> }) | null;
  readonly running: boolean;
  /** Restored a moment ago, and never run. */
  readonly fresh: boolean;
}

/** A VM of Firecracker, booted, restored or adopted. */
export class FirecrackerVm implements BootedVm, RestoredVm {
  readonly scratch: FileScratch = { kind: "file" };
  readonly keepsChannel = false;
  readonly timings: RestoreTimings;
  readonly ended: Promise<VmEnd>;
  readonly #parts: FirecrackerVmParts;
  #running: boolean;
  #gone = false;
  #capturing = false;
  /** Whether the guest finds a reset of its connections when it is resumed. */
  #resetSent: boolean;
  /** Restored, and not resumed yet: there is nothing to reset. */
  #fresh: boolean;
  #channel: VsockChannel | null = null;
  #whenRunning = Promise.withResolvers<void>();

  constructor(parts: FirecrackerVmParts) {
    this.#parts = parts;
    this.timings = parts.timings;
    this.#running = parts.running;
    this.#fresh = parts.fresh;
    // A saved state has it in it.
    this.#resetSent = parts.fresh;
    if (parts.running) this.#whenRunning.resolve();
    this.ended = parts.process.ended.then((end) => {
      this.#gone = true;
      parts.api.close();
      return { ...end, guestOff: guestOffOf(end) };
    });
  }

  get process(): ProcessIdentity {
    return this.#parts.process.identity;
  }

  consoleTail(): string {
    return this.#parts.consoleTail();
  }

  async openChannel(): Promise<Duplex> {
    this.#requireAlive();
    const { booted, journal } = this.#parts;
    // Firecracker drops a connection that a guest does not take at once, as a paused one cannot.
    const ready = booted?.ready ?? this.#whenRunning.promise;
    const channel = new VsockChannel({
      socketPath: join(journal.dir, vmFiles.vsock),
      port: agentPort,
      ready,
    });
    void this.ended.then(() => channel.destroy());
    // Who uses it may have let go of it when its end comes.
    channel.on("error", () => undefined);
    this.#channel = channel;
    return channel;
  }

  async pause(): Promise<void> {
    this.#requireAlive();
    if (!this.#running) return;
    await this.#orDeath("pause", this.#parts.api.call("vm", { state: "Paused" }));
    this.#running = false;
    this.#resetSent = false;
    this.#whenRunning = Promise.withResolvers();
  }

  async resume(): Promise<void> {
    this.#requireAlive();
    if (this.#running) return;
    await this.#orDeath("resume", this.#goOn());
    this.#running = true;
    this.#fresh = false;
    this.#whenRunning.resolve();
  }

  async saveState(path: string): Promise<void> {
    this.#requireAlive();
    const { host, api, journal, booted } = this.#parts;
    const target = { api, journal, timeoutMs: host.timeouts.snapshotMs };
    const saved =
      booted === null ? saveRestored(target, path) : saveBooted(target, { ...booted, path });
    await this.#orDeath("saving", saved);
    this.#resetSent = true;
  }

  async capture(spec: CaptureSpec): Promise<CaptureResult> {
    this.#requireAlive();
    if (this.#capturing || !this.#running) {
      throw new ForkdError("internal", "a capture needs a VM that runs and is not captured");
    }
    this.#capturing = true;
    try {
      return await this.#orDeath("the capture", this.#capture(spec));
    } finally {
      this.#capturing = false;
    }
  }

  async stop(): Promise<VmEnd> {
    await this.#parts.process.stop();
    return await this.ended;
  }

  async #goOn(): Promise<void> {
    const { host, api, journal } = this.#parts;
    if (!this.#resetSent) await sendReset({ api, journal, timeoutMs: host.timeouts.resumeMs });
    // Before the guest runs: it would end the channel itself, as if it had broken.
    if (!this.#fresh) await this.#endChannel();
    await api.call("vm", { state: "Resumed" });
  }

  #capture(spec: CaptureSpec): Promise<CaptureResult> {
    const { host, process, api, journal } = this.#parts;
    const onReset = (): Promise<void> => {
      // Who attaches anew waits until the guest runs.
      this.#whenRunning = Promise.withResolvers();
      return this.#endChannel();
    };
    const onResumed = (): void => this.#whenRunning.resolve();
    return captureFirecracker({ host, process, api, journal, onReset, onResumed }, spec);
  }

  /** Resolves when whoever uses it has been told why. */
  async #endChannel(): Promise<void> {
    const channel = this.#channel;
    if (channel === null || !channel.begun || channel.destroyed) return;
    const closed = new Promise<void>((resolve) => channel.once("close", resolve));
    channel.destroy(new ChannelReset("Firecracker resets the connections of a paused guest"));
    await closed;
  }

  /** A VMM that ends is the better reason than what its end broke, which is seen first. */
  async #orDeath<T>(what: string, work: Promise<T>): Promise<T> {
    try {
      return await work;
    } catch (error) {
      if (error instanceof FirecrackerRefusal) throw error;
      const end = await Promise.race([this.ended, sleep(deathSeenMs)]);
      if (end === undefined || end.stopped) throw error;
      const how = end.signal ?? (end.exitCode === null ? "unseen" : `exit ${end.exitCode}`);
      const words = end.log === "" ? "it printed nothing" : end.log;
      const message = `${what}: Firecracker ended (${how}): ${words}`;
      throw new ForkdError("engine_failed", message, { cause: error });
    }
  }

  #requireAlive(): void {
    if (this.#gone) throw new ForkdError("engine_failed", "Firecracker has ended");
  }
}

/** Firecracker ends by itself, and well, when its guest resets the machine; it knows no power. */
function guestOffOf({ stopped, exitCode }: VmEnd): string | null {
  return !stopped && exitCode === 0 ? "guest-reset" : null;
}
