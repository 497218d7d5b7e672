import { fork } from "node:child_process";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { ForkdError } from "@forkd/api";
import { Client } from "@forkd/sdk";
import { type Spread, spread } from "../../../bench/stats.ts";
import type { Baked } from "../baked.ts";
import { startDaemon, type TestDaemon } from "../daemon.ts";
import { eventually } from "../eventually.ts";
import { growthOf, type Holdings, holdingsOf } from "./growth.ts";
import { anyCall, type LoadStage } from "./mix.ts";
import type { Probed } from "./prober.ts";

export interface LoadOptions {
  readonly baked: Baked;
  /** Of the test's own, with the baked snapshot in it. */
  readonly dataDir: string;
  readonly clients: number;
  readonly durationMs: number;
}

export interface LoadReport {
  readonly calls: number;
  /** Milliseconds of /healthz from a process of its own; null when it never answered. */
  readonly health: Spread | null;
  /** How late that process itself was in one of a hundred times: within `health`, not the daemon's. */
  readonly proberLagP99Ms: number;
  /** 429 and 503 by their codes. */
  readonly refused: Readonly<Record<string, number>>;
  /** Pings that a guest answered too late: its host had no time for it. */
  readonly late: number;
  /** The first of the failures that may not be, with the call's name. */
  readonly wrong: readonly string[];
  readonly before: Holdings;
  readonly after: Holdings;
  readonly grown: readonly string[];
}

const sandboxCount = 3;
/** Part of the time that the daemon is given to fill its caches before it is measured. */
const warmShare = 0.2;
/** Its heap gets its size in the first thousand calls. */
const warmMinMs = 6_000;
const callTimeoutMs = 60_000;
/** What ended must be gone by then: connections that were kept, workers, garbage. */
const settleMs = 15_000;
const lateCode = "deadline_exceeded";
const refusals: ReadonlySet<number> = new Set([429, 503]);
const wrongShownMax = 20;

/** Mixed calls of many clients against a daemon of its own with a few real sandboxes. */
export async function runLoad(options: LoadOptions): Promise<LoadReport> {
  const daemon = await startDaemon(options.dataDir, { ownSession: true });
  try {
    return await new Load(daemon, options).run();
  } finally {
    await daemon.killAll();
  }
}

class Load {
  readonly #daemon: TestDaemon;
  readonly #options: LoadOptions;
  readonly #refused: Record<string, number> = {};
  readonly #wrong: string[] = [];
  #calls = 0;
  #late = 0;

  constructor(daemon: TestDaemon, options: LoadOptions) {
    this.#daemon = daemon;
    this.#options = options;
  }

  async run(): Promise<LoadReport> {
    const { durationMs } = this.#options;
    const stage = await this.#stage();
    await this.#clients(stage, Math.max(warmMinMs, warmShare * durationMs));
    const before = await this.#settled();
    await using prober = startProber(this.#daemon.url);
    await this.#clients(stage, durationMs);
    const probed = await prober.outcome();
    const health = spread(probed.timesMs);
    const after = await this.#settled(before);
    const grown = growthOf(before, after);
    const [calls, refused, late, wrong] = [this.#calls, this.#refused, this.#late, this.#wrong];
    const proberLagP99Ms = probed.ownLagP99Ms;
    return { calls, health, proberLagP99Ms, refused, late, wrong, before, after, grown };
  }

  async #stage(): Promise<LoadStage> {
    const { url, token } = this.#daemon;
    const settings = { url, timeoutMs: callTimeoutMs, retriesMax: 0 };
    const client = new Client({ ...settings, token });
    const { tag } = this.#options.baked;
    const body = { snapshot_tag: tag, n: sandboxCount };
    const ids = (await client.createSandboxes({ body })).map(({ id }) => id);
    return { client, stranger: new Client({ ...settings, token: `not-${token}` }), tag, ids };
  }

  async #clients(stage: LoadStage, forMs: number): Promise<void> {
    const until = performance.now() + forMs;
    const one = async (index: number): Promise<void> => {
      const id = stage.ids[index % stage.ids.length] ?? "";
      while (performance.now() < until) await this.#call(stage, id);
    };
    await Promise.all(Array.from({ length: this.#options.clients }, (_, index) => one(index)));
  }

  async #call(stage: LoadStage, id: string): Promise<void> {
    const { name, run } = anyCall();
    this.#calls += 1;
    try {
      await run(stage, id);
    } catch (error) {
      if (error instanceof ForkdError && isRefusal(error)) {
        this.#refused[error.code] = (this.#refused[error.code] ?? 0) + 1;
        await sleep((error.retryAfterSecs ?? 1) * 1000 * Math.random());
      } else if (name === "ping" && error instanceof ForkdError && error.code === lateCode) {
        this.#late += 1;
      } else if (this.#wrong.length < wrongShownMax) {
        this.#wrong.push(`${name}: ${error instanceof ForkdError ? error.code : ""} ${error}`);
      }
    }
  }

  /** When it holds no more than before, or will not settle any more. */
  async #settled(before?: Holdings): Promise<Holdings> {
    const now = (): Holdings => holdingsOf(this.#daemon.process.pid ?? 0, this.#options.dataDir);
    if (before === undefined) {
      await sleep(settleMs / 10);
      return now();
    }
    const check = (): void => {
      const grown = growthOf(before, now());
      if (grown.length > 0) throw new Error(grown.join());
    };
    // What will not settle is the report's to tell.
    await eventually(check, { timeoutMs: settleMs, everyMs: 500 }).catch(() => undefined);
    return now();
  }
}

/** A daemon that is gone is no refusal, although its code says that one may come again. */
function isRefusal({ code, status }: ForkdError): boolean {
  return refusals.has(status) && code !== "daemon_unreachable";
}

interface Prober extends AsyncDisposable {
  /** Ends it; what it measured. Throws when it ended by itself. */
  outcome(): Promise<Probed>;
}

function startProber(url: string): Prober {
  const child = fork(fileURLToPath(new URL("./prober.ts", import.meta.url)), [url], {
    // A session of its own, as it has on a real host: the kernel shares processors by sessions.
    detached: true,
  });
  const exited = new Promise<void>((resolve) => child.once("exit", () => resolve()));
  const probed = new Promise<Probed>((resolve, reject) => {
    // It is our own, so its message's shape is known.
    child.once("message", (message) => resolve(message as Probed));
    child.once("exit", (code) => reject(new Error(`the prober ended with ${code}`)));
  });
  probed.catch(() => undefined);
  return {
    outcome: async () => {
      if (child.connected) child.send("over");
      return await probed;
    },
    [Symbol.asyncDispose]: async () => {
      child.kill();
      await exited;
    },
  };
}
