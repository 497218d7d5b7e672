/** Numbers as people read them. Pure; every value comes in. */

const binaryUnits = ["B", "KiB", "MiB", "GiB", "TiB"] as const;

/** `1536` is "1.5 KiB"; whole bytes have no decimals. */
export function formatBytes(bytes: number): string {
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < binaryUnits.length - 1) {
    value /= 1024;
    unit += 1;
  }
  const digits = unit === 0 || value >= 100 ? 0 : 1;
  return `${value.toFixed(digits)} ${binaryUnits[unit] ?? ""}`;
}

/** Milliseconds with one decimal below 100, else whole. */
export function formatMs(ms: number): string {
  return ms < 100 ? ms.toFixed(1) : Math.round(ms).toString();
}

const ages = [
  { seconds: 86_400, unit: "d" },
  { seconds: 3600, unit: "h" },
  { seconds: 60, unit: "min" },
] as const;

/** "3 min ago"; a clock that runs behind shows "now". */
export function formatAge(createdAtUnix: number, nowUnix: number): string {
  const seconds = Math.floor(nowUnix - createdAtUnix);
  if (seconds <= 0) return "now";
  const step = ages.find((age) => seconds >= age.seconds);
  if (step === undefined) return `${seconds} s ago`;
  return `${Math.floor(seconds / step.seconds)} ${step.unit} ago`;
}

export interface Summary {
  readonly p50: number;
  readonly p95: number;
  readonly max: number;
}

/** Nearest-rank percentiles; undefined for no values. */
export function summarize(values: readonly number[]): Summary | undefined {
  const sorted = values.toSorted((a, b) => a - b);
  const rank = (share: number): number =>
    sorted[Math.ceil(share * sorted.length) - 1] ?? Number.NaN;
  if (sorted.length === 0) return undefined;
  return { p50: rank(0.5), p95: rank(0.95), max: rank(1) };
}
