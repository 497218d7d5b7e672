import { z } from "zod";
import { limits } from "./limits.ts";

/** The names of the limits, equal in requests and answers. Units come last. */
export const limitNames = [
  "memory_limit_mib",
  "cpu_limit",
  "pids_limit",
  "io_read_bps",
  "io_write_bps",
] as const;
export type LimitName = (typeof limitNames)[number];

const bps = z.int().min(limits.ioMinBps).max(Number.MAX_SAFE_INTEGER).nullish();

/** What a request may ask for; docs/host-limits.md says what each bounds. */
export const limitFields = {
  /** The most of the host's memory, MiB. */
  memory_limit_mib: z.int().min(1).max(limits.memoryLimitMaxMib).nullish(),
  /** Processors' worth of the host's time, such as 0.5. */
  cpu_limit: z.number().min(limits.cpuLimitMin).max(limits.cpuLimitMax).nullish(),
  /** Threads and processes of the host; the guest's own are not seen there. */
  pids_limit: z.int().min(limits.pidsLimitMin).max(limits.pidsLimitMax).nullish(),
  /** Bytes a second from the disk of the data directory. */
  io_read_bps: bps,
  /** Bytes a second to the disk of the data directory. */
  io_write_bps: bps,
  /** Refuse the request when a limit that it names cannot be enforced. */
  require_limits: z.boolean().default(false),
} as const;

/**
 * What bounds a sandbox. A number is in force: it was read back from the kernel. Null is unbounded,
 * and if the limit was asked for, `not_in_force` says why.
 */
export const sandboxLimitsSchema = z.object({
  memory_limit_mib: z.int().nullable(),
  cpu_limit: z.number().nullable(),
  pids_limit: z.int().nullable(),
  io_read_bps: z.int().nullable(),
  io_write_bps: z.int().nullable(),
  not_in_force: z.array(
    z.object({ limit: z.enum(limitNames), asked: z.number(), reason: z.string() }),
  ),
});
export type SandboxLimits = z.infer<typeof sandboxLimitsSchema>;
