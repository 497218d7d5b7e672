import type { Writable } from "node:stream";
import { toForkdError } from "@forkd/api";
import type { Output as GuestOutput, GuestProcess } from "@forkd/sdk";
import { DetachKeys } from "./detach-keys.ts";
import { exitCodes, guestExitCode } from "./exit.ts";
import { untilStopped } from "./interrupt.ts";
import type { Output } from "./output.ts";
import { RawTerminal } from "./terminal.ts";

/** How a running command is joined to this process's own streams. */
export interface JoinOptions {
  readonly output: Output;
  readonly signal: AbortSignal;
  /** Whether standard input goes to the command. */
  readonly input: boolean;
  /** See {@link DetachKeys}. */
  readonly detachKeys: Uint8Array;
  /** What to type to come back. */
  readonly returnHint: string;
}

/** Shows a command until it ends or is left; answers our own exit code. */
export async function joinProcess(guest: GuestProcess, options: JoinOptions): Promise<number> {
  const { stdin, stdout, stderr } = process;
  const isRaw = guest.tty && stdin.isTTY && options.input;
  using terminal = isRaw ? await RawTerminal.open(stdin, stdout) : null;
  if (terminal !== null) {
    guest.resize(terminal.size);
    terminal.onResize((size) => guest.resize(size));
  }
  const left = options.input ? feed(guest, isRaw ? options.detachKeys : null) : never;
  const shown = Promise.all([show(guest, guest.stdout, stdout), show(guest, guest.stderr, stderr)]);
  shown.catch(() => undefined);
  const end = await untilStopped(Promise.race([left, ended(guest, shown)]), options.signal);
  if (end === "left") {
    terminal?.[Symbol.dispose]();
    options.output.hint(`\nit runs on; return with: ${options.returnHint}`);
    return exitCodes.ok;
  }
  if (end.timed_out) options.output.warn("the command was killed at its --timeout-secs");
  return guestExitCode({ exitCode: end.exit_code, timedOut: end.timed_out, error: null });
}

const never: Promise<never> = new Promise(() => undefined);

async function ended(guest: GuestProcess, shown: Promise<unknown>) {
  await shown;
  return await guest.wait();
}

/** Standard input to the guest; resolves only when the user has left the command by keys. */
async function feed(guest: GuestProcess, keys: Uint8Array | null): Promise<"left"> {
  const detachKeys = new DetachKeys(keys ?? new Uint8Array(0));
  try {
    for await (const chunk of process.stdin) {
      const { bytes, isDetach } = detachKeys.take(Buffer.from(chunk));
      if (bytes.length > 0) await guest.write(bytes);
      if (!isDetach) continue;
      await guest.detach();
      return "left";
    }
    await guest.end();
  } catch (error) {
    // A command that ends before its input does is no failure.
    if (toForkdError(error).code !== "exec_not_found") throw error;
  }
  return await never;
}

/** An output at the pace of its reader. One that goes away is told as a pipe would tell it. */
async function show(guest: GuestProcess, from: GuestOutput, to: Writable): Promise<void> {
  for await (const chunk of from) {
    const failure = await new Promise((resolve) => to.write(chunk, resolve));
    if (failure == null) continue;
    guest.signal("SIGPIPE");
    return;
  }
}
