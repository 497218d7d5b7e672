import { z } from "zod";

const problem = "holds a NUL or a lone surrogate";

/**
 * A text that reaches a guest's kernel as it is: without a NUL, which ends a C string, and without
 * half of a character, which UTF-8 cannot say. `charsMax` bounds its UTF-16 units.
 */
export function exactText(charsMax: number): z.ZodString {
  return z
    .string()
    .max(charsMax)
    .refine((text) => !text.includes("\0") && text.isWellFormed(), problem);
}

/** A text that is sent as UTF-8: a NUL is a character like others. */
export function wellFormedText(charsMax?: number): z.ZodString {
  const text = charsMax === undefined ? z.string() : z.string().max(charsMax);
  return text.refine((value) => value.isWellFormed(), "holds a lone surrogate");
}
