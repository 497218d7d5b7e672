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

  /** Whether nobody is inside. */
  get isEmpty(): boolean {
    return this.#taken === 0;
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

/** One gate for each key; those that nobody is in are forgotten. */
export class KeyedGate {
  readonly #gates = new Map<string, Gate>();
  readonly #open: (key: string) => Gate;

  constructor(open: (key: string) => Gate) {
    this.#open = open;
  }

  /** Throws the refusal of the key's gate when all its places are taken. */
  async run<T>(key: string, work: () => Promise<T>): Promise<T> {
    const gate = this.#gates.get(key) ?? this.#open(key);
    this.#gates.set(key, gate);
    try {
      return await gate.run(work);
    } finally {
      if (gate.isEmpty) this.#gates.delete(key);
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

/** Gates of one kind for each sandbox, by its id. */
export function sandboxGate(places: number, what: string): KeyedGate {
  return new KeyedGate((id) => requestGate(places, `${what} of sandbox ${id}`));
}
