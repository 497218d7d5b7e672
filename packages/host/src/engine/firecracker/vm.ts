import { join } from "node:path";
import type { Duplex } from "node:stream";
import { ForkdError } from "@forkd/api";
import type { ProcessIdentity } from "../../linux/proc.ts";
import type {
  BootedVm,
  CaptureResult,
  CaptureSpec,
  RestoredVm,
  RestoreTimings,
  VmEnd,
} from "../engine.ts";
import type { VmProcess } from "../process.ts";
import type { FirecrackerApi } from "./api.ts";
import { captureFirecracker } from "./capture.ts";
import { VsockChannel } from "./channel.ts";
import { agentPort, vmFiles } from "./files.ts";
import type { FirecrackerHost } from "./host.ts";
import type { VmJournal } from "./journal.ts";
import { saveBooted, saveRestored } from "./save.ts";

/** Every thread of a VM stops or goes on at a signal. */
const stateTimeoutMs = 10_000;

export interface FirecrackerVmParts {
  readonly host: FirecrackerHost;
  readonly process: VmProcess;
  readonly api: FirecrackerApi;
  readonly journal: VmJournal;
  readonly timings: RestoreTimings;
  readonly consoleTail: () => string;
  /** A parent: where its RAM goes when its state is saved, and when its agent listens. */
  readonly booted: { readonly memoryFile: string; readonly ready: Promise<void> } | null;
  readonly running: boolean;
}

/** A VM of Firecracker, booted, restored or adopted. */
export class FirecrackerVm implements BootedVm, RestoredVm {
  readonly timings: RestoreTimings;
  readonly ended: Promise<VmEnd>;
  readonly #parts: FirecrackerVmParts;
  #running: boolean;
  #gone = false;
  #capturing = false;
  #whenRunning = Promise.withResolvers<void>();

  constructor(parts: FirecrackerVmParts) {
    this.#parts = parts;
    this.timings = parts.timings;
    this.#running = parts.running;
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
    return channel;
  }

  async pause(): Promise<void> {
    this.#requireAlive();
    if (!this.#running) return;
    await this.#parts.api.call("vm", { state: "Paused" }, { timeoutMs: stateTimeoutMs });
    this.#running = false;
    this.#whenRunning = Promise.withResolvers();
  }

  async resume(): Promise<void> {
    this.#requireAlive();
    if (this.#running) return;
    await this.#parts.api.call("vm", { state: "Resumed" }, { timeoutMs: stateTimeoutMs });
    this.#running = true;
    this.#whenRunning.resolve();
  }

  async saveState(path: string): Promise<void> {
    this.#requireAlive();
    const { api, journal, booted } = this.#parts;
    if (booted === null) await saveRestored({ api, journal }, path);
    else await saveBooted({ api, journal }, { path, memoryFile: booted.memoryFile });
  }

  async capture(spec: CaptureSpec): Promise<CaptureResult> {
    this.#requireAlive();
    if (this.#capturing || !this.#running) {
      throw new ForkdError("internal", "a capture needs a VM that runs and is not captured");
    }
    this.#capturing = true;
    try {
      return await captureFirecracker(this.#parts, spec);
    } finally {
      this.#capturing = false;
    }
  }

  async stop(): Promise<VmEnd> {
    await this.#parts.process.stop();
    return await this.ended;
  }

  #requireAlive(): void {
    if (this.#gone) throw new ForkdError("engine_failed", "Firecracker has ended");
  }
}

/** Firecracker ends by itself, and well, when its guest resets the machine; it knows no power. */
function guestOffOf({ stopped, exitCode }: VmEnd): string | null {
  return !stopped && exitCode === 0 ? "guest-reset" : null;
}
