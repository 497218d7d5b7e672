import { connect } from "node:net";
import { join } from "node:path";
import type { Duplex } from "node:stream";
import { ForkdError } from "@forkd/api";
import { withDeadline } from "../../lib/deadline.ts";
import type { ProcessIdentity } from "../../linux/proc.ts";
import type {
  BootedVm,
  CaptureResult,
  CaptureSpec,
  LayeredScratch,
  RestoredVm,
  RestoreTimings,
  VmEnd,
} from "../engine.ts";
import type { VmProcess } from "../process.ts";
import { agentSocketName } from "./argv.ts";
import { captureQemu } from "./capture.ts";
import type { Qmp } from "./qmp.ts";
import { QemuScratch } from "./scratch-disk.ts";

const channelTimeoutMs = 10_000;
/** From the end of the process to the last bytes of its monitor. */
const lastEventsMs = 500;

interface QemuVmParts {
  readonly process: VmProcess;
  readonly qmp: Qmp;
  readonly workDir: string;
  readonly timings: RestoreTimings;
  readonly consoleTail: () => string;
}

/** A VM of QEMU, booted or restored. */
export class QemuVm implements BootedVm, RestoredVm {
  readonly timings: RestoreTimings;
  readonly ended: Promise<VmEnd>;
  readonly scratch: LayeredScratch;
  readonly keepsChannel = true;
  readonly #parts: QemuVmParts;

  constructor(parts: QemuVmParts) {
    this.#parts = parts;
    this.timings = parts.timings;
    this.scratch = new QemuScratch(parts.qmp);
    this.ended = parts.process.ended.then(async (end) => {
      const { promise: late, resolve } = Promise.withResolvers<void>();
      const timer = setTimeout(resolve, lastEventsMs);
      await Promise.race([parts.qmp.closed, late]).finally(() => clearTimeout(timer));
      return { ...end, guestOff: parts.qmp.guestOff };
    });
  }

  get process(): ProcessIdentity {
    return this.#parts.process.identity;
  }

  consoleTail(): string {
    return this.#parts.consoleTail();
  }

  openChannel(): Promise<Duplex> {
    const socket = connect(join(this.#parts.workDir, agentSocketName));
    const opened = new Promise<Duplex>((resolve, reject) => {
      socket.once("connect", () => resolve(socket));
      socket.once("error", (error) => {
        const message = `the agent's channel does not open: ${error.message}`;
        reject(new ForkdError("engine_failed", message, { cause: error }));
      });
    });
    opened.catch(() => socket.destroy());
    return withDeadline(opened, channelTimeoutMs, "opening the agent's channel");
  }

  async pause(): Promise<void> {
    await this.#parts.qmp.execute("stop");
  }

  async resume(): Promise<void> {
    await this.#parts.qmp.execute("cont");
  }

  /** `live:false` keeps the disk images of the stopped VM open, so that it can go on. */
  async saveState(path: string): Promise<void> {
    await this.#parts.qmp.execute("xen-save-devices-state", { filename: path, live: false });
  }

  capture(spec: CaptureSpec): Promise<CaptureResult> {
    return captureQemu(this.#parts, spec);
  }

  async stop(): Promise<VmEnd> {
    const end = await this.#parts.process.stop();
    this.#parts.qmp.close();
    return end;
  }
}
