import { type CallName, limits } from "@forkd/api";
import { z } from "zod";

/** What a route's tool has beyond what the route table says. */
export interface RouteToolSpec {
  /** Default: the route's name in snake case. */
  readonly name?: string;
  /** Default: the route's summary. */
  readonly description?: string;
  /** Arguments that differ from the table's, given those. */
  readonly fields?: (shape: Readonly<z.ZodRawShape>) => z.ZodRawShape;
  /** For a POST that changes nothing. */
  readonly isReadOnly?: true;
}

/** What upstream's server asks for when nothing is said. */
const memoryLimitDefaultMib = 256;

const memoryLimit = z
  .int()
  .min(1)
  .max(limits.memoryLimitMaxMib)
  .nullable()
  .default(memoryLimitDefaultMib)
  .describe(
    "MiB of the host that each child may take; it is killed when it needs more. " +
      "null: no limit of its own.",
  );

/** Names and defaults are those of upstream's server, so that prompts written for it go on. */
export const routeToolSpecs: Partial<Record<CallName, RouteToolSpec>> = {
  listSnapshots: {
    description:
      "List the snapshots that sandboxes can be forked from: tag, status (writing, ready or " +
      "failed; only ready ones can be forked), image, memory.",
  },
  createSnapshot: {
    description:
      "Boot a root image with a kernel (paths on the daemon's host), wait boot_wait_secs, and " +
      "freeze it as a snapshot. Takes many seconds.",
  },
  deleteSnapshot: {
    description:
      "Remove a snapshot for good. Sandboxes forked from it run on. One that other snapshots " +
      "were made from is removed only with cascade (those too) or force (those break).",
  },
  getSnapshotInfo: {
    description: "Get one snapshot: its ancestors, the snapshots that depend on it, and its sizes.",
  },
  compactSnapshot: {
    description:
      "Copy a snapshot and its ancestors into one new snapshot, to, that depends on none.",
  },
  getLineage: {
    description: "Get the tree of all snapshots and sandboxes: which came from which.",
  },
  listSandboxes: {
    description:
      "List the sandboxes that run now; with ended=true also those that ended, with the reason.",
  },
  createSandboxes: {
    name: "spawn_sandboxes",
    description:
      `Fork n (1 to ${limits.spawnCountMax}) sandboxes from a snapshot. Each is a virtual ` +
      "machine with the snapshot's memory and processes, and answers at once. Kill each with " +
      "kill_sandbox when it is done with.",
    fields: () => ({ memory_limit_mib: memoryLimit }),
  },
  getSandbox: { description: "Get one sandbox: its state, snapshot, limits and proven identity." },
  getSandboxLogs: {
    description:
      "Get the last that the virtual machine monitor of a sandbox printed, also of one that has " +
      "ended: for why it ended. What programs in it print is with exec_command.",
  },
  deleteSandbox: {
    name: "kill_sandbox",
    description: "End a sandbox and free all that it held. What it had not saved is lost.",
  },
  pingSandbox: {
    description: "Ask the agent in a sandbox to answer; says what the guest is warmed with.",
    isReadOnly: true,
  },
  execSandbox: {
    name: "exec_command",
    description:
      "Run a program in a sandbox and wait for its end: args are words, with no shell between. " +
      'For a shell: ["sh", "-c", "..."]. A failing program is told by exit_code, a killed one ' +
      "by signal and timed_out.",
  },
  evalSandbox: {
    name: "eval_code",
    description:
      "Evaluate code in a sandbox's warm interpreter, which keeps variables between calls and " +
      "has the snapshot's modules imported. error and traceback tell what the code raised.",
  },
  listFiles: {
    description:
      "List a directory in a sandbox. To read a file use read_file, to write one write_file.",
  },
  statFile: { description: "Tell what a path in a sandbox is: type, mode, owner, size, time." },
  removeFile: {
    description: "Remove a file of a sandbox, or with recursive a directory and all in it.",
  },
  branchSandbox: {
    description:
      "Make a snapshot of a running sandbox, which runs on. Fork it with spawn_sandboxes to try " +
      "several ways on from this point. mode: full, diff (changed pages only) or live (copied " +
      "while the guest runs; with wait=false the answer's status is writing until it is done).",
  },
};
