import type { Labels, Metric, Sample } from "./exposition.ts";

interface Series {
  readonly labels: Labels;
  /** How many fell into each bucket alone; the last one has no upper bound. */
  readonly counts: number[];
  sum: number;
}

export interface HistogramPlan {
  readonly name: string;
  readonly help: string;
  /** Upper bounds of the buckets in seconds, ascending. */
  readonly buckets: readonly number[];
}

/** From a call that the cache answers to a guest that works in software for minutes. */
export const workBuckets: readonly number[] = [
  0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300,
];
/** Pauses of a guest are to be milliseconds. */
export const pauseBuckets: readonly number[] = [
  0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10,
];
/** Beyond it, whoever makes labels has forgotten a bound: what is new is left out. */
const seriesMax = 200;

/** Counts durations by buckets, one series for each set of labels that was seen. */
export class Histogram {
  readonly #plan: HistogramPlan;
  readonly #series = new Map<string, Series>();

  constructor(plan: HistogramPlan) {
    this.#plan = plan;
  }

  observe(ms: number, labels: Labels = {}): void {
    const series = this.#seriesOf(labels);
    if (series === undefined) return;
    const seconds = Math.max(0, ms / 1000);
    const at = this.#plan.buckets.findIndex((bound) => seconds <= bound);
    const bucket = at === -1 ? this.#plan.buckets.length : at;
    series.counts[bucket] = (series.counts[bucket] ?? 0) + 1;
    series.sum += seconds;
  }

  collect(): Metric {
    const { name, help } = this.#plan;
    const samples = [...this.#series.values()].flatMap((series) => this.#samplesOf(series));
    return { name, type: "histogram", help, samples };
  }

  #seriesOf(labels: Labels): Series | undefined {
    const key = JSON.stringify(labels);
    const known = this.#series.get(key);
    if (known !== undefined || this.#series.size >= seriesMax) return known;
    const counts = Array.from({ length: this.#plan.buckets.length + 1 }, () => 0);
    const series = { labels, counts, sum: 0 };
    this.#series.set(key, series);
    return series;
  }

  /** Buckets are cumulative: each counts all that are at most its bound. */
  #samplesOf({ labels, counts, sum }: Series): Sample[] {
    let total = 0;
    const buckets = counts.map((count, at) => {
      total += count;
      const le = this.#plan.buckets[at];
      const bound = { ...labels, le: le === undefined ? "+Inf" : String(le) };
      return { suffix: "_bucket", labels: bound, value: total };
    });
    const ends = [
      { suffix: "_sum", labels, value: sum },
      { suffix: "_count", labels, value: total },
    ];
    return [...buckets, ...ends];
  }
}

/** Counts by sets of labels. */
export class Counter {
  readonly #name: string;
  readonly #help: string;
  readonly #series = new Map<string, { readonly labels: Labels; value: number }>();

  constructor(name: string, help: string) {
    this.#name = name;
    this.#help = help;
  }

  add(labels: Labels): void {
    const key = JSON.stringify(labels);
    const known = this.#series.get(key);
    if (known !== undefined) known.value += 1;
    else if (this.#series.size < seriesMax) this.#series.set(key, { labels, value: 1 });
  }

  collect(): Metric {
    const samples = [...this.#series.values()];
    return { name: this.#name, type: "counter", help: this.#help, samples };
  }
}
