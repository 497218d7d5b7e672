import { type ErrorCode, ForkdError } from "@forkd/api";

export interface IntegerRange {
  readonly min: number;
  readonly max: number;
  /** The failure's code; bad_request when absent. */
  readonly code?: ErrorCode;
}

/** Options as the parser left them: texts, switches and lists, read once into typed values. */
export class Flags {
  readonly #values: Readonly<Record<string, unknown>>;

  constructor(values: Readonly<Record<string, unknown>>) {
    this.#values = values;
  }

  /** An absent option and an empty one are the same. */
  text(name: string): string | undefined {
    const value = this.#values[name];
    return typeof value === "string" && value !== "" ? value : undefined;
  }

  /** For options that the parser already insists on, or that have a default. */
  required(name: string): string {
    const value = this.text(name);
    if (value === undefined) throw usage(`${flagOf(name)} needs a value`);
    return value;
  }

  on(name: string): boolean {
    return this.#values[name] === true;
  }

  list(name: string): readonly string[] {
    const value = this.#values[name];
    return Array.isArray(value) ? value.filter((item) => typeof item === "string") : [];
  }

  integer(name: string, range: IntegerRange): number {
    return parseInteger(this.required(name), flagOf(name), range);
  }

  optionalInteger(name: string, range: IntegerRange): number | undefined {
    const value = this.text(name);
    return value === undefined ? undefined : parseInteger(value, flagOf(name), range);
  }

  /** A number with up to six decimal places. */
  optionalNumber(name: string, { min, max }: IntegerRange): number | undefined {
    const text = this.text(name);
    if (text === undefined) return undefined;
    const value = /^\d{1,9}(\.\d{1,6})?$/.test(text) ? Number(text) : Number.NaN;
    if (value >= min && value <= max) return value;
    const shown = JSON.stringify(text.slice(0, 40));
    throw usage(`${flagOf(name)} must be a number from ${min} to ${max}, not ${shown}`);
  }
}

/** `memSizeMib` is `--mem-size-mib`, `n` is `-n`. */
export function flagOf(name: string): string {
  const words = name.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
  return words.length === 1 ? `-${words}` : `--${words}`;
}

/** A mistake in the command line. */
export function usage(message: string, hint?: string): ForkdError {
  return new ForkdError("bad_request", message, {
    hint: hint ?? "add --help to the command to see its options",
  });
}

function parseInteger(text: string, flag: string, range: IntegerRange): number {
  const value = /^-?\d{1,15}$/.test(text) ? Number(text) : Number.NaN;
  if (value >= range.min && value <= range.max) return value;
  const shown = JSON.stringify(text.slice(0, 40));
  throw new ForkdError(
    range.code ?? "bad_request",
    `${flag} must be a whole number from ${range.min} to ${range.max}, not ${shown}`,
    { hint: `choose a number from ${range.min} to ${range.max}` },
  );
}
