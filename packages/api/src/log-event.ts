import { z } from "zod";

/** What the answer to a followed log tells, one server-sent event each. `ended` is the last one. */
export const logEventSchema = z.discriminatedUnion("type", [
  /** What the VMM has printed: first the end of what was there, then as it comes. */
  z.object({ type: z.literal("log"), text: z.string() }),
  /** The sandbox has ended, and all that was printed has been told. */
  z.object({ type: z.literal("ended") }),
]);
export type LogEvent = z.infer<typeof logEventSchema>;
