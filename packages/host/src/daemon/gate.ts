import { ForkdError } from "@forkd/api";

/** A bounded number of places without a queue: who finds none is told to come again. */
export class Gate {
  #taken = 0;
  readonly #places: number;
  readonly #refuse: () => ForkdError;

  constructor(places: number, refuse: () => ForkdError) {
    this.#places = places;
    this.#refuse = refuse;
  }

  /** Throws the gate's refusal when all places are taken. */
  async run<T>(work: () => Promise<T>): Promise<T> {
    if (this.#taken >= this.#places) throw this.#refuse();
    this.#taken += 1;
    try {
      return await work();
    } finally {
      this.#taken -= 1;
    }
  }
}

/** A gate that answers 429 and names what there is too much of. */
export function requestGate(places: number, what: string): Gate {
  return new Gate(
    places,
    () => new ForkdError("too_many_requests", `${places} ${what} are in flight already`),
  );
}
