/** Exit codes are API: few, listed in `--help`, and chosen in one switch. */
export const exitCodes = {
  ok: 0,
  failure: 1,
  usage: 2,
  timedOut: 124,
  interrupted: 130,
  terminated: 143,
} as const;

export type StopSignal = "SIGHUP" | "SIGINT" | "SIGTERM";

/** Signal numbers of Linux, for the shell's convention of 128 + n. */
const stopSignalNumbers: Readonly<Record<StopSignal, number>> = {
  SIGHUP: 1,
  SIGINT: 2,
  SIGTERM: 15,
};

/** How one run of the CLI ended. */
export type Outcome =
  | { readonly kind: "done"; readonly code: number }
  | { readonly kind: "usage" }
  | { readonly kind: "failed" }
  | { readonly kind: "stopped"; readonly signal: StopSignal };

export function exitCodeFor(outcome: Outcome): number {
  switch (outcome.kind) {
    case "done":
      return outcome.code;
    case "usage":
      return exitCodes.usage;
    case "failed":
      return exitCodes.failure;
    case "stopped":
      return 128 + stopSignalNumbers[outcome.signal];
  }
}

/** What a guest command's end says about its exit code. */
export interface GuestEnd {
  /** Negative for a signal. */
  readonly exitCode: number;
  readonly timedOut: boolean;
  readonly error: string | null;
}

/** The guest's own code, 128 + n for signal n, 124 at the deadline, 1 when it did not start. */
export function guestExitCode(end: GuestEnd): number {
  if (end.timedOut) return exitCodes.timedOut;
  if (end.exitCode < 0) return 128 + (-end.exitCode % 128);
  if (end.error !== null && end.exitCode === 0) return exitCodes.failure;
  return end.exitCode % 256;
}

export const exitCodesHelp = `
Exit codes:
  0        done
  1        failed; the reason and a hint are on standard error
  2        the command line is wrong; nothing was started
  124      exec, eval, run: the guest's command was killed at --timeout-secs
  130 143  ended by SIGINT, SIGTERM; what this command had started is gone
  other    exec, run: the guest's own exit code, 128+n when signal n ended it
`;
