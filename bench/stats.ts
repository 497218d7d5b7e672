/** What a list of measured times comes to. All in the unit of the input. */
export interface Spread {
  readonly count: number;
  readonly min: number;
  readonly p50: number;
  readonly p95: number;
  readonly p99: number;
  readonly max: number;
  readonly mean: number;
}

/**
 * The value at `share` (0 to 1) by the nearest-rank method: a value that was measured, never one
 * between two. Throws RangeError for an empty list.
 */
export function percentile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  const rank = Math.max(1, Math.ceil(share * sorted.length));
  const value = sorted[rank - 1];
  if (value === undefined) throw new RangeError("a percentile needs at least one value");
  return value;
}

/** Null for an empty list: nothing succeeded, so there is nothing to say. */
export function spread(values: readonly number[]): Spread | null {
  if (values.length === 0) return null;
  const sum = values.reduce((total, value) => total + value, 0);
  return {
    count: values.length,
    min: Math.min(...values),
    p50: percentile(values, 0.5),
    p95: percentile(values, 0.95),
    p99: percentile(values, 0.99),
    max: Math.max(...values),
    mean: sum / values.length,
  };
}

/** The middle one of repeated rounds, which one slow round does not move. */
export function median(values: readonly number[]): number | null {
  return values.length === 0 ? null : percentile(values, 0.5);
}

/** How many times larger `a` is than `b`; null when one was not measured. */
export function ratio(a: number | null, b: number | null): number | null {
  return a === null || b === null || b === 0 ? null : a / b;
}
