import { guestExitCode } from "./exit.ts";
import type { Output } from "./output.ts";

/** What any way to run a command in a guest answers. */
export interface ExecEnd {
  readonly stdout: string;
  readonly stderr: string;
  readonly exit_code: number;
  readonly timed_out: boolean;
  readonly truncated?: boolean;
  readonly error: string | null;
}

/** Prints what the command printed and why it ended; answers our own exit code. */
export function reportExec(output: Output, end: ExecEnd, timeoutSecs: number): number {
  const code = guestExitCode({
    exitCode: end.exit_code,
    timedOut: end.timed_out,
    error: end.error,
  });
  if (output.json) {
    output.data(end);
    return code;
  }
  output.guest("stdout", end.stdout);
  output.guest("stderr", end.stderr);
  if (end.truncated === true) output.warn("the output was longer than forkd keeps; it is cut");
  if (end.timed_out) output.warn(`the command was killed after ${timeoutSecs} s`);
  else if (end.error !== null) output.warn(`the command did not run: ${end.error}`);
  return code;
}
