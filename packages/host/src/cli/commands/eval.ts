import { ForkdError, limits, type SandboxId } from "@forkd/api";
import type { Client } from "@forkd/sdk";
import type { Context } from "../context.ts";
import { openClient } from "../daemon.ts";
import { exitCodes } from "../exit.ts";
import { usage } from "../flags.ts";
import {
  addGuestOptions,
  type Guest,
  openTcpAgent,
  parseGuest,
  parseTimeoutSecs,
} from "../guest.ts";
import type { Output } from "../output.ts";
import { defineVerb } from "../verb.ts";

const graceMs = 10_000;
/** For who reads the last output that the code has left. */
const readerMaxMs = 60_000;

interface EvalEnd {
  readonly result?: string | null | undefined;
  readonly result_json?: string | null | undefined;
  readonly stdout?: string;
  readonly stderr?: string;
  readonly error?: string | null | undefined;
  readonly traceback?: string | null | undefined;
  readonly stack?: string | null | undefined;
  readonly timed_out: boolean;
  readonly exit_code: number;
}

/** The value's text as the interpreter shows it; its JSON when there is only that (upstream's Node). */
function report(output: Output, end: EvalEnd, timeoutSecs: number): number {
  const failed = Boolean(end.error) || end.exit_code !== 0;
  const code = end.timed_out ? exitCodes.timedOut : failed ? exitCodes.failure : exitCodes.ok;
  if (output.json) {
    output.data(end);
    return code;
  }
  output.guest("stdout", end.stdout ?? "");
  output.guest("stderr", end.stderr ?? "");
  const value = end.result ?? end.result_json;
  if (code === exitCodes.ok && value) output.line(value);
  for (const text of [end.error, end.traceback, end.stack]) {
    if (text) output.guest("stderr", `${text.trimEnd()}\n`);
  }
  if (end.timed_out) output.warn(`the code was interrupted after ${timeoutSecs} s`);
  return code;
}

interface EvalOptions {
  readonly guest: Guest;
  readonly code: string;
  readonly timeoutSecs: number;
}

async function evaluate(context: Context, options: EvalOptions): Promise<EvalEnd> {
  const { guest, code, timeoutSecs } = options;
  if (guest.by === "tcp") return (await openTcpAgent(context, guest)).eval(code, timeoutSecs);
  const client = await openClient(context.settings);
  // One result for programs, what comes for people.
  if (!context.output.json)
    return await follow(context, client, { id: guest.id, code, timeoutSecs });
  return client.evalSandbox({
    params: { id: guest.id },
    body: { code, timeout_secs: timeoutSecs },
    timeoutMs: timeoutSecs * 1000 + graceMs,
    signal: context.signal,
  });
}

/** Prints what the code prints, as it comes and at the pace of who reads it. */
async function follow(
  { output, signal }: Context,
  client: Client,
  { id, code, timeoutSecs }: { id: SandboxId; code: string; timeoutSecs: number },
): Promise<EvalEnd> {
  const { Controller } = await import("@forkd/sdk");
  const controller = new Controller({ client });
  return await controller.evalCode(id, code, {
    timeoutSecs,
    // A reader that takes its time, a pager, is no reason to give up before the guest does.
    timeoutMs: timeoutSecs * 1000 + readerMaxMs,
    signal,
    onOutput: (text, from) => output.guestPaced(from, text),
  });
}

export const evalVerb = defineVerb<EvalOptions>({
  describe: (command) =>
    addGuestOptions(
      command
        .name("eval")
        .usage("[options] [ID] -- CODE...")
        .description("evaluate code in a guest's warm interpreter; exits 1 when it raises")
        .argument("[id]", "a sandbox of the daemon")
        .argument("[code...]", "after --: the code; words are joined by spaces"),
    ).option(
      "--timeout-secs <secs>",
      "interrupt it after this time",
      String(limits.evalTimeoutDefaultSecs),
    ),
  parse: (input) => {
    const code = input.rest.join(" ");
    if (code === "") {
      throw usage("no code", "put it after --, for example: forkd eval ID -- 'numpy.zeros(5)'");
    }
    if (Buffer.byteLength(code) > limits.evalCodeBytesMax) {
      throw new ForkdError("bad_request", `code has at most ${limits.evalCodeBytesMax} bytes`);
    }
    return { guest: parseGuest(input), code, timeoutSecs: parseTimeoutSecs(input.flags) };
  },
  run: async (context, options) =>
    report(context.output, await evaluate(context, options), options.timeoutSecs),
});
