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

export const lsVerb = defineVerb({
  describe: (command) => command.name("ls").description("list the daemon's sandboxes"),
  parse: () => ({}),
  run: async ({ settings, output, signal }) => {
    const client = await openClient(settings);
    const sandboxes = await client.listSandboxes({ timeoutMs: listTimeoutMs, signal });
    if (output.json) output.data(sandboxes);
    else if (sandboxes.length === 0) output.progress("no sandboxes");
    else {
      output.table(columns(Date.now() / 1000), sandboxes);
      output.progress(`${sandboxes.length} sandboxes`);
    }
    return exitCodes.ok;
  },
});
