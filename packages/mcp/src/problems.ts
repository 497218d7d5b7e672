import { type ErrorCode, errorTable, type ForkdError } from "@forkd/api";
import type { CallToolResult } from "@modelcontextprotocol/sdk/types.js";

/**
 * What a model can do about a failure. The table's own hints name commands of a terminal, which it
 * may not have.
 */
const hints: Partial<Record<ErrorCode, string>> = {
  bad_request: "mend the arguments that the message names, and call the tool again",
  sandbox_not_found: "call list_sandboxes for the ids that there are",
  sandbox_ended: "fork a new one with spawn_sandboxes",
  snapshot_not_found: "call list_snapshots for the tags that there are",
  snapshot_exists: "choose another tag, or remove this one with delete_snapshot",
  snapshot_in_use: "remove what was made from it first, or call delete_snapshot with cascade",
  snapshot_not_ready: "wait until list_snapshots shows status ready",
  snapshot_incomplete: "fork another snapshot; this one can only be removed with delete_snapshot",
  file_not_found: "call list_files for what is in its directory",
  file_denied: "call it again with another user, for example root",
  file_exists: "choose another path, or leave exclusive out to replace it",
  file_failed: 'look at it with exec_command: ["ls", "-l", PATH]',
  is_a_directory: "call list_files for the files in it, and name one",
  not_a_directory: "name a directory; call stat_file for what each part of the path is",
  not_a_file: "use exec_command for devices, pipes and files of the kernel",
  range_not_satisfiable: "call read_file with an offset below the file's size; see stat_file",
  upload_incomplete: "call it again; the file that was there is unchanged",
  agent_unavailable: "call ping_sandbox; if it fails too, kill_sandbox and fork a new one",
  deadline_exceeded: "call it again with a larger timeout_secs",
  unauthorized: "the operator must give this server the daemon's token in FORKD_TOKEN",
  daemon_unreachable: "the operator must start forkd-controller, or name its address in FORKD_URL",
};

/** Where a program finds the failure; structured content has the shape of the tool's success. */
const problemKey = "forkd/problem";

/** A failed call, in words and as an object: code, message, hint, when to try again. */
export function problemResult(error: ForkdError): CallToolResult {
  const { code, message, retryAfterSecs } = error;
  const hint = error.hint === errorTable[code].hint ? (hints[code] ?? error.hint) : error.hint;
  const retry = retryAfterSecs === null ? "" : `\nretry: after ${retryAfterSecs} s`;
  return {
    isError: true,
    content: [{ type: "text", text: `error ${code}: ${message}\nhint: ${hint}${retry}` }],
    _meta: { [problemKey]: { error: message, code, hint, retry_after_secs: retryAfterSecs } },
  };
}
