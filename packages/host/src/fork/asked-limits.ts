import type { CreateSandbox, LimitName } from "@forkd/api";

/** What a request asks for, in the units of the wire; null asks for nothing. */
export interface AskedLimits {
  readonly values: Readonly<Record<LimitName, number | null>>;
  /** Fail instead of running without one of them. */
  readonly required: boolean;
}

/** The limits of a request's body. */
export function askedLimits(
  body: Partial<Pick<CreateSandbox, LimitName | "require_limits">>,
): AskedLimits {
  return {
    values: {
      memory_limit_mib: body.memory_limit_mib ?? null,
      cpu_limit: body.cpu_limit ?? null,
      pids_limit: body.pids_limit ?? null,
      io_read_bps: body.io_read_bps ?? null,
      io_write_bps: body.io_write_bps ?? null,
    },
    required: body.require_limits ?? false,
  };
}

/** Asks for nothing. */
export const noLimits: AskedLimits = askedLimits({});
