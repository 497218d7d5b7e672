import { limits, parseSandboxId, type SandboxId } from "@forkd/api";
import { listTimeoutMs, openClient } from "../daemon.ts";
import { exitCodes } from "../exit.ts";
import { usage } from "../flags.ts";
import { defineVerb } from "../verb.ts";

interface LogsOptions {
  readonly id: SandboxId;
  readonly lines: number | undefined;
}

export const logsVerb = defineVerb<LogsOptions>({
  describe: (command) =>
    command
      .name("logs")
      .description("print the last that a sandbox's VMM printed, also of one that has ended")
      .argument("[id]", "the sandbox's id")
      .option("-n, --lines <lines>", "only the last lines"),
  parse: ({ flags, args: [id, extra] }) => {
    if (id === undefined) throw usage("name a sandbox", "list them with: forkd ls --ended");
    if (extra !== undefined) throw usage(`unexpected ${JSON.stringify(extra)}`);
    const isCut = flags.text("lines") !== undefined;
    const lines = isCut ? flags.integer("lines", { min: 1, max: limits.logLinesMax }) : undefined;
    return { id: parseSandboxId(id), lines };
  },
  run: async ({ settings, output, signal }, { id, lines }) => {
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
