import { createHash } from "node:crypto";
import { z } from "zod";

/**
 * The entries of an audit log are a chain: each carries its number and the SHA-256 of the whole
 * line before it, so that no line can be changed, taken out or moved unnoticed. The chain goes on
 * across rotations and restarts, and for all who write to one log.
 */
export interface ChainHead {
  /** Number of the last entry, from 1 on; 0 before the first. */
  readonly seq: number;
  /** SHA-256 of its line without the line break, lower-case hex. */
  readonly hash: string;
}

/** What the first entry of all is linked to. */
export const chainStart: ChainHead = { seq: 0, hash: "0".repeat(64) };

const hashPattern = /^[0-9a-f]{64}$/;
const linkSchema = z.object({ seq: z.int().min(1), prev: z.string().regex(hashPattern) });
const headPattern = /^(\d{1,15}):([0-9a-f]{64})$/;

/** What a line says of its place. */
export type ChainLink = z.infer<typeof linkSchema>;

/** The line of an entry, without its line break, and the head that it makes. */
export function linkEntry(entry: object, head: ChainHead): { line: string; head: ChainHead } {
  const line = JSON.stringify({ ...entry, seq: head.seq + 1, prev: head.hash });
  return { line, head: { seq: head.seq + 1, hash: hashLine(line) } };
}

export function hashLine(line: string): string {
  return createHash("sha256").update(line).digest("hex");
}

/** Undefined for a line that is no entry of a chain, such as those before there were any. */
export function parseLink(line: string): ChainLink | undefined {
  try {
    return linkSchema.safeParse(JSON.parse(line)).data;
  } catch {
    return undefined;
  }
}

/** The head that the last of these lines makes; undefined when none is of a chain. */
export function headOf(lines: readonly string[]): ChainHead | undefined {
  for (const line of lines.toReversed()) {
    const link = parseLink(line);
    if (link !== undefined) return { seq: link.seq, hash: hashLine(line) };
  }
  return undefined;
}

/** `SEQ:HASH`, as heads are kept and printed. */
export function formatHead({ seq, hash }: ChainHead): string {
  return `${seq}:${hash}`;
}

export function parseHead(text: string): ChainHead | undefined {
  const [, seq, hash] = headPattern.exec(text.trim()) ?? [];
  return seq === undefined || hash === undefined ? undefined : { seq: Number(seq), hash };
}
