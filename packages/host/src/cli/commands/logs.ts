import { limits, parseSandboxId, type SandboxId } from "@forkd/api";
import type { Context } from "../context.ts";
import { listTimeoutMs, openClient } from "../daemon.ts";
import { exitCodes } from "../exit.ts";
import { usage } from "../flags.ts";
import { defineVerb } from "../verb.ts";

interface LogsOptions {
  readonly id: SandboxId;
  readonly lines: number | undefined;
  readonly follow: boolean;
}

/** Prints until the sandbox has ended, at the pace of who reads it. */
async function follow({ settings, output, signal }: Context, { id, lines }: LogsOptions) {
  const { followLog } = await import("@forkd/sdk");
  const client = await openClient(settings);
  for await (const text of followLog(client, id, { lines, signal })) {
    if (!(await output.guestPaced("stdout", text))) break;
  }
  return exitCodes.ok;
}

export const logsVerb = defineVerb<LogsOptions>({
  describe: (command) =>
    command
      .name("logs")
      .description("print the last that a sandbox's VMM printed, also of one that has ended")
      .argument("[id]", "the sandbox's id")
      .option("-n, --lines <lines>", "only the last lines")
      .option("-f, --follow", "and what it prints from now on, until the sandbox has ended"),
  parse: ({ flags, args: [id, extra] }) => {
    if (id === undefined) throw usage("name a sandbox", "list them with: forkd ls --ended");
    if (extra !== undefined) throw usage(`unexpected ${JSON.stringify(extra)}`);
    const isCut = flags.text("lines") !== undefined;
    const lines = isCut ? flags.integer("lines", { min: 1, max: limits.logLinesMax }) : undefined;
    const follow = flags.on("follow");
    if (follow && flags.on("json")) {
      throw usage("--json prints one result, not a stream", "leave out -f, or --json");
    }
    return { id: parseSandboxId(id), lines, follow };
  },
  run: async (context, options) => {
    if (options.follow) return await follow(context, options);
    const { settings, output, signal } = context;
    const { id, lines } = options;
    const client = await openClient(settings);
    const query = lines === undefined ? {} : { lines };
    const log = await client.getSandboxLogs({
      params: { id },
      query,
      timeoutMs: listTimeoutMs,
      signal,
    });
    if (output.json) output.data({ id, log });
    else if (log !== "") output.line(log.replace(/\n$/, ""));
    else {
      output.progress("its VMM has printed nothing");
      output.hint(`what runs in the guest logs there: forkd exec ${id} -- dmesg`);
    }
    return exitCodes.ok;
  },
});
