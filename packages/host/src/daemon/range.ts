import { ForkdError } from "@forkd/api";

/** A part of a file: `first` counts from the start, or as the last `suffix` bytes from the end. */
export type ByteRange =
  | { readonly first: number; readonly last: number | null }
  | { readonly suffix: number };

const rangePattern = /^bytes=(\d{0,15})-(\d{0,15})$/;

/**
 * What a Range header asks for (RFC 9110, section 14). Undefined, which means all of it, for none,
 * for several ranges at once, and for one in a form that is not known, as the standard allows.
 */
export function parseRange(header: string | undefined): ByteRange | undefined {
  const [, first = "", last = ""] = rangePattern.exec(header ?? "") ?? [];
  if (first === "") return last === "" ? undefined : { suffix: Number(last) };
  if (last !== "" && Number(last) < Number(first)) return undefined;
  return { first: Number(first), last: last === "" ? null : Number(last) };
}

export function rangeError(sizeBytes: number): ForkdError {
  return new ForkdError("range_not_satisfiable", `the file has ${sizeBytes} bytes`);
}
