import type { Socket } from "node:net";
import { ForkdError } from "@forkd/api";
import { withDeadline } from "../lib/deadline.ts";
import { isAlive, type ProcessIdentity, waitUntilGone } from "../linux/proc.ts";
import type { AdoptSpec, VmEnd } from "./engine.ts";
import { logTail, type VmProcess } from "./process.ts";

const stopTimeoutMs = 10_000;
/** From the close of the connection to the end of the process. */
const lingerMs = 3_000;

/**
 * A VMM that another process started. `tether` is a connection to a socket that the VMM listens on:
 * the kernel closes it when the VMM ends, which is the event of that.
 */
export class AdoptedProcess implements VmProcess {
  readonly identity: ProcessIdentity;
  readonly ended: Promise<VmEnd>;
  #stopped = false;
  #abandoned = false;

  constructor({ process, workDir }: AdoptSpec, tether: Socket) {
    this.identity = process;
    this.ended = new Promise((resolve) => {
      tether.once("close", () => resolve(this.#confirmEnd(workDir)));
    });
  }

  /** It was not taken over after all: the close of the connection means nothing. */
  abandon(): void {
    this.#abandoned = true;
  }

  /** A VMM that drops its owner and does not end is of no use to anybody. */
  async #confirmEnd(workDir: string): Promise<VmEnd> {
    if (!this.#abandoned && !(await waitUntilGone(this.identity, lingerMs))) {
      this.#kill();
      await waitUntilGone(this.identity, lingerMs);
    }
    const log = logTail(workDir);
    return { stopped: this.#stopped, exitCode: null, signal: null, guestOff: null, log };
  }

  async stop(): Promise<VmEnd> {
    this.#stopped = true;
    this.#kill();
    return await withDeadline(this.ended, stopTimeoutMs, "ending the adopted VMM");
  }

  #kill(): void {
    if (isAlive(this.identity)) process.kill(this.identity.pid, "SIGKILL");
  }
}

/** Throws engine_failed unless that very process runs. */
export function requireAlive(process: ProcessIdentity): void {
  if (isAlive(process)) return;
  throw new ForkdError("engine_failed", `the VMM with pid ${process.pid} is gone`);
}
