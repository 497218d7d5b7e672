import { ForkdError } from "@forkd/api";

/** A bounded number of places and a bounded queue for them, first come, first served. */
export class Semaphore {
  #free: number;
  readonly #waiting: (() => void)[] = [];
  readonly #waitingMax: number;

  constructor(places: number, waitingMax: number) {
    this.#free = places;
    this.#waitingMax = waitingMax;
  }

  /** Runs `work` in one place. Throws busy when the queue is full. */
  async run<T>(work: () => Promise<T>): Promise<T> {
    await this.#enter();
    try {
      return await work();
    } finally {
      this.#leave();
    }
  }

  #enter(): Promise<void> {
    if (this.#free > 0) {
      this.#free -= 1;
      return Promise.resolve();
    }
    if (this.#waiting.length >= this.#waitingMax) {
      return Promise.reject(new ForkdError("busy", `${this.#waitingMax} requests wait already`));
    }
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  #leave(): void {
    const next = this.#waiting.shift();
    if (next === undefined) this.#free += 1;
    else next();
  }
}
