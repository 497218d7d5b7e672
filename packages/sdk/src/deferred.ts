/** A promise with its ends in hand. */
export interface Deferred<T> {
  readonly promise: Promise<T>;
  readonly resolve: (value: T) => void;
  readonly reject: (reason: unknown) => void;
}

/** As Promise.withResolvers, which Node 20 lacks. */
export function deferred<T>(): Deferred<T> {
  const ends: { resolve: (value: T) => void; reject: (reason: unknown) => void } = {
    resolve: () => undefined,
    reject: () => undefined,
  };
  // The executor runs before the constructor returns.
  const promise = new Promise<T>((resolve, reject) => Object.assign(ends, { resolve, reject }));
  return { promise, ...ends };
}
