import {
  type ExecId,
  type ExecInfo,
  parseExecId,
  parseSandboxId,
  type SandboxId,
} from "@forkd/api";
import { killTimeoutMs, listTimeoutMs, openClient } from "../daemon.ts";
import { exitCodes } from "../exit.ts";
import { usage } from "../flags.ts";
import { formatAge } from "../format.ts";
import type { Column } from "../table.ts";
import { defineVerb } from "../verb.ts";

function columns(nowUnix: number): Column<ExecInfo>[] {
  return [
    { title: "EXEC", cell: ({ exec_id }) => exec_id },
    { title: "PID", align: "right", cell: ({ pid }) => String(pid) },
    { title: "STATE", cell: stateOf },
    { title: "TTY", cell: ({ tty }) => (tty ? "yes" : "no") },
    { title: "OUTPUT", align: "right", cell: ({ output_bytes }) => String(output_bytes) },
    { title: "STARTED", cell: ({ started_at_unix }) => formatAge(started_at_unix, nowUnix) },
    { title: "COMMAND", cell: ({ command }) => command },
  ];
}

function stateOf({ end, attached }: ExecInfo): string {
  if (end === null) return attached ? "attached" : "running";
  return end.timed_out ? "timed out" : `exited ${end.signal ?? end.exit_code}`;
}

export const execsVerb = defineVerb<{ readonly id: SandboxId; readonly kill: ExecId | null }>({
  describe: (command) =>
    command
      .name("execs")
      .description("list the commands of forkd exec -i, -t and -d in a sandbox, or kill one")
      .argument("<id>", "the sandbox")
      .option("--kill <exec>", "kill this one and forget it"),
  parse: ({ flags, args: [id, extra] }) => {
    if (id === undefined) throw usage("name a sandbox", "list them with: forkd ls");
    if (extra !== undefined) throw usage(`unexpected ${JSON.stringify(extra)}`);
    const kill = flags.text("kill");
    return { id: parseSandboxId(id), kill: kill === undefined ? null : parseExecId(kill) };
  },
  run: async ({ settings, output, signal }, { id, kill }) => {
    const client = await openClient(settings);
    if (kill !== null) {
      const params = { id, exec_id: kill };
      await client.deleteExec({ params, timeoutMs: killTimeoutMs, signal });
      if (output.json) output.data({ exec_id: kill, killed: true });
      else output.line(`✓ ${kill}`);
      return exitCodes.ok;
    }
    const execs = await client.listExecs({ params: { id }, timeoutMs: listTimeoutMs, signal });
    if (output.json) output.data(execs);
    else if (execs.length === 0) output.progress("no commands");
    else output.table(columns(Date.now() / 1000), execs);
    return exitCodes.ok;
  },
});
