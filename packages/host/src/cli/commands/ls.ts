import type { SandboxInfo } from "@forkd/api";
import { listTimeoutMs, openClient } from "../daemon.ts";
import { exitCodes } from "../exit.ts";
import { formatAge } from "../format.ts";
import type { Column } from "../table.ts";
import { defineVerb } from "../verb.ts";

const none = "-";

function columns(nowUnix: number): Column<SandboxInfo>[] {
  return [
    { title: "ID", cell: (sandbox) => sandbox.id },
    { title: "SNAPSHOT", cell: (sandbox) => sandbox.snapshot_tag },
    { title: "PID", align: "right", cell: (sandbox) => String(sandbox.pid ?? none) },
    { title: "NETNS", cell: (sandbox) => sandbox.netns ?? none },
    { title: "BRANCHES", align: "right", cell: (sandbox) => String(sandbox.branch_count) },
    { title: "GUEST_ADDR", cell: (sandbox) => sandbox.guest_addr },
    { title: "STATE", cell: (sandbox) => sandbox.state },
    { title: "CREATED", cell: (sandbox) => formatAge(sandbox.created_at_unix, nowUnix) },
  ];
}

function endColumns(nowUnix: number): Column<SandboxInfo>[] {
  return [
    { title: "ID", cell: (sandbox) => sandbox.id },
    { title: "SNAPSHOT", cell: (sandbox) => sandbox.snapshot_tag },
    { title: "STATE", cell: (sandbox) => sandbox.state },
    { title: "REASON", cell: ({ end }) => end?.reason ?? none },
    { title: "ENDED", cell: ({ end }) => (end ? formatAge(end.at_unix_ms / 1000, nowUnix) : none) },
    { title: "DETAIL", cell: ({ end }) => firstLine(end?.detail ?? none) },
  ];
}

function firstLine(text: string): string {
  return text.split("\n")[0] ?? "";
}

export const lsVerb = defineVerb({
  describe: (command) =>
    command
      .name("ls")
      .description("list the daemon's sandboxes")
      .option("--ended", "those that have ended too, and why"),
  parse: ({ flags }) => ({ ended: flags.on("ended") }),
  run: async ({ settings, output, signal }, { ended }) => {
    const client = await openClient(settings);
    const query = { ended };
    const sandboxes = await client.listSandboxes({ query, timeoutMs: listTimeoutMs, signal });
    if (output.json) output.data(sandboxes);
    else if (sandboxes.length === 0) output.progress("no sandboxes");
    else {
      output.table((ended ? endColumns : columns)(Date.now() / 1000), sandboxes);
      output.progress(`${sandboxes.length} sandboxes`);
    }
    return exitCodes.ok;
  },
});
