import { z } from "zod";
import { evalResultSchema } from "./sandbox.ts";

/** How streamed code ended: its result without what it printed, which has been told by then. */
export const evalEndSchema = evalResultSchema.omit({ stdout: true, stderr: true }).extend({
  /** Output was dropped, because the code's time was over and the client had not taken it. */
  truncated: z.boolean(),
});
export type EvalEnd = z.infer<typeof evalEndSchema>;

/**
 * What the answer to a streamed eval tells, one server-sent event each. `result` or `error` is the
 * last one; an answer that ends without it was cut off.
 */
export const evalEventSchema = z.discriminatedUnion("type", [
  z.object({ type: z.literal("stdout"), text: z.string() }),
  z.object({ type: z.literal("stderr"), text: z.string() }),
  z.object({ type: z.literal("result"), ...evalEndSchema.shape }),
  z.object({ type: z.literal("error"), error: z.string(), code: z.string(), hint: z.string() }),
]);
export type EvalEvent = z.infer<typeof evalEventSchema>;
