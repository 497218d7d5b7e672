import { z } from "zod";
import { ForkdError } from "./errors.ts";

/** A snapshot's name: safe as one path segment and one URL segment. */
export type SnapshotTag = string & z.$brand<"SnapshotTag">;
/** A sandbox's name: `sb-<unix seconds, hex>-<random, hex>`. */
export type SandboxId = string & z.$brand<"SandboxId">;
/** The name of a command that was started over an exec stream: `ex-<random, hex>`. */
export type ExecId = string & z.$brand<"ExecId">;

const tagPattern = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,63}$/;
const sandboxIdPattern = /^[A-Za-z0-9_][A-Za-z0-9_-]{0,63}$/;
const execIdPattern = /^ex-[0-9a-f]{16}$/;

export const tagMessage =
  "must be 1 to 64 of A-Z a-z 0-9 . _ - and begin with a letter, a digit or _";

export const snapshotTagSchema = z.string().regex(tagPattern, tagMessage).brand<"SnapshotTag">();
export const sandboxIdSchema = z
  .string()
  .regex(sandboxIdPattern, "is not a sandbox id")
  .brand<"SandboxId">();
export const execIdSchema = z.string().regex(execIdPattern, "is not an exec id").brand<"ExecId">();

/** The one validator of tags, for every boundary: CLI, REST, files, packs. Throws invalid_tag. */
export function parseSnapshotTag(text: string): SnapshotTag {
  const parsed = snapshotTagSchema.safeParse(text);
  if (parsed.success) return parsed.data;
  throw new ForkdError(
    "invalid_tag",
    `invalid tag ${JSON.stringify(text.slice(0, 80))}: ${tagMessage}`,
  );
}

/** Throws invalid_id. */
export function parseSandboxId(text: string): SandboxId {
  const parsed = sandboxIdSchema.safeParse(text);
  if (parsed.success) return parsed.data;
  throw new ForkdError("invalid_id", `invalid sandbox id ${JSON.stringify(text.slice(0, 80))}`);
}

/** Throws invalid_id. */
export function parseExecId(text: string): ExecId {
  const parsed = execIdSchema.safeParse(text);
  if (parsed.success) return parsed.data;
  throw new ForkdError("invalid_id", `invalid exec id ${JSON.stringify(text.slice(0, 80))}`, {
    hint: "list the sandbox's commands with: forkd execs ID",
  });
}
