import { z } from "zod";
import { limits } from "./limits.ts";

export const eventTypeSchema = z.enum([
  "sandbox.created",
  "sandbox.ended",
  "sandbox.branched",
  "snapshot.writing",
  "snapshot.ready",
  "snapshot.failed",
  "snapshot.removed",
  "events.missed",
]);
export type EventType = z.infer<typeof eventTypeSchema>;

/** One thing that has happened; the `data` of a server-sent event. docs/events.md explains each. */
export const forkdEventSchema = z.object({
  /** For Last-Event-ID: not a number, and of no meaning to another daemon. */
  id: z.string(),
  type: eventTypeSchema,
  at_unix_ms: z.int(),
  sandbox_id: z.string().optional(),
  snapshot_tag: z.string().optional(),
  /** Why a sandbox ended, a snapshot failed, or events are missing. */
  reason: z.string().optional(),
});
export type ForkdEvent = z.infer<typeof forkdEventSchema>;

const types: readonly string[] = eventTypeSchema.options;
const isTypes = (text: string): boolean => text.split(",").every((type) => types.includes(type));

/** Which events to send; all by default. */
export const eventQuerySchema = z.object({
  /** Types, with commas between. */
  types: z.string().max(limits.eventFilterCharsMax).refine(isTypes, "names no type").optional(),
  sandbox_id: z.string().max(64).optional(),
  snapshot_tag: z.string().max(64).optional(),
  /** The last event that the client has, as the Last-Event-ID header says it too. */
  after: z.string().max(64).optional(),
});
