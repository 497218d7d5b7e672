import { ForkdError } from "@forkd/api";

export interface SemaphoreBounds {
  /** What may run at one time. */
  readonly places: number;
  /** What may wait for a place. */
  readonly waitingMax: number;
  /** What it is that waits, for the refusal: `restores`. */
  readonly what: string;
}

export interface SemaphoreLoad extends Omit<SemaphoreBounds, "what"> {
  readonly running: number;
  readonly waiting: number;
}

/** Weight of the latest piece of work in the average that Retry-After is computed from. */
const latestWeight = 0.2;
const retryAfterSecsMax = 60;

/** A bounded number of places and a bounded queue for them, first come, first served. */
export class Semaphore {
  readonly #bounds: SemaphoreBounds;
  #free: number;
  readonly #waiting: (() => void)[] = [];
  /** Milliseconds that a piece of work holds its place, on average. */
  #averageMs = 0;

  constructor(bounds: SemaphoreBounds) {
    this.#bounds = bounds;
    this.#free = bounds.places;
  }

  get load(): SemaphoreLoad {
    const { places, waitingMax } = this.#bounds;
    return { places, waitingMax, running: places - this.#free, waiting: this.#waiting.length };
  }

  /**
   * Throws busy unless `count` more pieces of work can run or wait now: for work that is all or
   * nothing, so that no part of it is begun in vain.
   */
  requireRoom(count: number): void {
    const { waitingMax, what } = this.#bounds;
    if (count <= this.#free + waitingMax - this.#waiting.length) return;
    const message = `${this.#waiting.length} of ${waitingMax} ${what} wait already`;
    throw new ForkdError("busy", `${message}: ${count} more are too many`, {
      retryAfterSecs: this.#retryAfterSecs(),
    });
  }

  /**
   * Runs `work` in one place. Throws busy when the queue is full, and the signal's reason when it
   * aborts before the work has begun.
   */
  async run<T>(work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    signal?.throwIfAborted();
    await this.#enter(signal);
    const started = performance.now();
    try {
      return await work();
    } finally {
      this.#learn(performance.now() - started);
      this.#leave();
    }
  }

  async #enter(signal?: AbortSignal): Promise<void> {
    if (this.#free > 0) {
      this.#free -= 1;
      return;
    }
    this.requireRoom(1);
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const onAbort = (): void => {
      const at = this.#waiting.indexOf(resolve);
      if (at >= 0) this.#waiting.splice(at, 1);
      reject(signal?.reason);
    };
    this.#waiting.push(resolve);
    signal?.addEventListener("abort", onAbort, { once: true });
    try {
      await promise;
    } finally {
      signal?.removeEventListener("abort", onAbort);
    }
  }

  #leave(): void {
    const next = this.#waiting.shift();
    if (next === undefined) this.#free += 1;
    else next();
  }

  #learn(ms: number): void {
    const weight = this.#averageMs === 0 ? 1 : latestWeight;
    this.#averageMs += weight * (ms - this.#averageMs);
  }

  /** When about half of what waits now will have run. */
  #retryAfterSecs(): number {
    const rounds = this.#waiting.length / this.#bounds.places / 2;
    const secs = Math.ceil((rounds * this.#averageMs) / 1000);
    return Math.min(Math.max(secs, 1), retryAfterSecsMax);
  }
}
