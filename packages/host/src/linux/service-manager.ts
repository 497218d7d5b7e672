import { withDeadline } from "../lib/deadline.ts";
import { startFilter } from "../lib/exec.ts";
import type { Logger } from "../lib/log.ts";
import { nativeTool } from "../lib/native.ts";

/** Whoever started us as a service, and wants to be told of our state: systemd (sd_notify(3)). */
export interface ServiceManager extends AsyncDisposable {
  /** Requests are answered from now on; also after a reload. */
  ready(status: string): void;
  /** What is configured is being read again; `ready` ends it. */
  reloading(): void;
  stopping(status: string): void;
}

/** The environment's words that concern us alone: nobody that we start may speak in our name. */
export const serviceVariables = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"] as const;

type Env = Readonly<Record<string, string | undefined>>;

/** Text that waits for the helper; more means that it does not read, and is dropped. */
const waitingBytesMax = 64 * 1024;
const statusCharsMax = 200;
/** What the helper may take to pass on our last words. */
const endMaxMs = 2000;

/** Speaks to systemd when that has started us, else to nobody. */
export function openServiceManager(env: Env, log: Logger): ServiceManager {
  const socket = env["NOTIFY_SOCKET"];
  return socket === undefined || socket === "" ? silent : new Systemd(socket, env, log);
}

const silent: ServiceManager = {
  ready: () => undefined,
  reloading: () => undefined,
  stopping: () => undefined,
  [Symbol.asyncDispose]: async () => undefined,
};

/** Through `forkd-notify`, since Node has no datagram sockets of the local kind. */
class Systemd implements ServiceManager {
  readonly #end = new AbortController();
  readonly #helper;
  readonly #watchdog: NodeJS.Timeout | undefined;

  constructor(socket: string, env: Env, log: Logger) {
    this.#helper = startFilter([nativeTool("forkd-notify")], {
      timeoutMs: null,
      signal: this.#end.signal,
      env: { NOTIFY_SOCKET: socket },
    });
    this.#helper.stdout.resume();
    this.#helper.ended.catch((cause: unknown) => {
      log.error("systemd cannot be told of our state", { cause });
    });
    this.#watchdog = this.#startWatchdog(env);
  }

  ready(status: string): void {
    this.#tell("READY=1", `STATUS=${oneLine(status)}`);
  }

  reloading(): void {
    // CLOCK_MONOTONIC, which systemd 253 and later compares with its own order (sd_notify(3)).
    const micros = process.hrtime.bigint() / 1000n;
    this.#tell("RELOADING=1", `MONOTONIC_USEC=${micros}`, "STATUS=reloading");
  }

  stopping(status: string): void {
    this.#tell("STOPPING=1", `STATUS=${oneLine(status)}`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#watchdog);
    this.#helper.stdin.end();
    // One that systemd does not listen to must not hold up our own end.
    await withDeadline(this.#helper.ended, endMaxMs, "the end of forkd-notify").catch(() => {
      this.#end.abort();
    });
  }

  /** From a timer of the event loop: when that is stuck, systemd hears nothing. */
  #startWatchdog(env: Env): NodeJS.Timeout | undefined {
    const intervalMs = watchdogIntervalMs(env);
    if (intervalMs === undefined) return undefined;
    return setInterval(() => this.#tell("WATCHDOG=1"), intervalMs).unref();
  }

  #tell(...assignments: string[]): void {
    const { stdin } = this.#helper;
    if (!stdin.writable || stdin.writableLength > waitingBytesMax) return;
    stdin.write(`${assignments.join("\t")}\n`);
  }
}

function oneLine(text: string): string {
  return text.replaceAll(/\p{Cc}+/gu, " ").slice(0, statusCharsMax);
}

/** Half the time after which systemd gives us up; undefined when it does not watch us. */
function watchdogIntervalMs(env: Env): number | undefined {
  const micros = Number(env["WATCHDOG_USEC"] || Number.NaN);
  const pid = env["WATCHDOG_PID"];
  if (!(micros > 0) || (pid !== undefined && Number(pid) !== process.pid)) return undefined;
  return Math.max(1, micros / 1000 / 2);
}
