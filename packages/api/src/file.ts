import { z } from "zod";
import { exactText } from "./exact-text.ts";
import { limits } from "./limits.ts";

const base64url = /^[A-Za-z0-9_-]+={0,2}$/;

/** Characters of a path in a request; its bytes are counted where it is decoded. */
const pathText = exactText(limits.filePathBytesMax).min(1);
/** A path as bytes, for names that are not UTF-8: base64url. */
const pathBytes = z
  .string()
  .max(2 * limits.filePathBytesMax)
  .regex(base64url, "is not base64url");
/** Whose rights count, as for a command: `name`, `uid` or `uid:gid`. Default: the image's user. */
const userText = exactText(256).min(1);
/** Permission bits in octal, as chmod takes them. */
const modeText = z.string().regex(/^[0-7]{3,4}$/, "must be 3 or 4 octal digits");

const flag = z.stringbool().default(false);

/** Which file is meant: exactly one of `path` and `path_b64`. docs/files.md says what a path is. */
export const fileQuerySchema = z.object({
  path: pathText.optional(),
  path_b64: pathBytes.optional(),
  user: userText.optional(),
});
export type FileQuery = z.infer<typeof fileQuerySchema>;

/** `follow`: tell of what a link leads to, instead of the link. */
export const fileStatQuerySchema = fileQuerySchema.extend({ follow: flag });

/** `recursive`: a directory with all that is in it. */
export const fileRemoveQuerySchema = fileQuerySchema.extend({ recursive: flag });

export const fileWriteQuerySchema = fileQuerySchema.extend({
  mode: modeText.optional(),
  /** Make the directories above it that are missing. */
  parents: flag,
  /** Refuse to replace a file. */
  exclusive: flag,
});
export type FileWriteQuery = z.infer<typeof fileWriteQuerySchema>;

export const makeDirectorySchema = z.object({
  path: pathText.optional(),
  path_b64: pathBytes.optional(),
  user: userText.nullish(),
  mode: modeText.nullish(),
  /** Make those above it too, and take one that is there. */
  parents: z.boolean().default(false),
});

export const renameFileSchema = z.object({
  path: pathText.optional(),
  path_b64: pathBytes.optional(),
  new_path: pathText.optional(),
  new_path_b64: pathBytes.optional(),
  user: userText.nullish(),
});

export const fileTypeSchema = z.enum([
  "file",
  "directory",
  "symlink",
  "block_device",
  "char_device",
  "fifo",
  "socket",
]);
export type FileType = z.infer<typeof fileTypeSchema>;

/** One file. Bytes of a name that are not UTF-8 show as U+FFFD; then the `_b64` field has them. */
export const fileInfoSchema = z.object({
  /** The last part of its path. */
  name: z.string(),
  name_b64: z.string().optional(),
  type: fileTypeSchema,
  /** Permission bits in octal: `0644`. */
  mode: z.string(),
  uid: z.int(),
  gid: z.int(),
  size_bytes: z.int(),
  modified_at_unix_ms: z.number(),
  /** Where a link leads to. */
  target: z.string().optional(),
  target_b64: z.string().optional(),
});
export type FileInfo = z.infer<typeof fileInfoSchema>;

/** A directory's entries by name; `truncated` when there are more than `fileListEntriesMax`. */
export const fileListSchema = z.object({
  entries: fileInfoSchema.array(),
  truncated: z.boolean(),
});
export type FileList = z.infer<typeof fileListSchema>;
