/**
 * Every failure that forkd reports, in one table.
 *
 * A code is API: clients match on it, docs/errors.md is generated from it, and a test keeps both
 * equal. The status is the HTTP answer.
 */
interface ErrorSpec {
  readonly status: number;
  /** Seconds after which the same request may succeed; null when it will not. */
  readonly retryAfterSecs: number | null;
  /** The default next step, shown under the message when the thrower has no better one. */
  readonly hint: string;
}

const spec = (status: number, hint: string, retryAfterSecs: number | null = null): ErrorSpec => ({
  status,
  retryAfterSecs,
  hint,
});

export const errorTable = {
  bad_request: spec(400, "compare the request with GET /openapi.json"),
  invalid_tag: spec(400, "use 1 to 64 of A-Z a-z 0-9 . _ - and do not begin with . or -"),
  invalid_id: spec(400, "list the known ids with: forkd ls"),
  invalid_count: spec(400, "choose n from 1 to 1000"),
  upload_incomplete: spec(400, "send the whole file again; what was there is unchanged"),
  unauthorized: spec(401, "send Authorization: Bearer TOKEN; the CLI reads FORKD_TOKEN"),
  file_denied: spec(403, "name a user who may do it, for example user=root"),
  forbidden: spec(403, "call the daemon by its own address, and not from another site's page"),
  snapshot_not_found: spec(404, "list the tags with: forkd images"),
  sandbox_not_found: spec(404, "list the sandboxes with: forkd ls"),
  exec_not_found: spec(404, "list the sandbox's commands with: forkd execs ID"),
  image_not_found: spec(404, "check the image's name and tag"),
  kernel_not_found: spec(404, "install a guest kernel with: forkd kernel install"),
  file_not_found: spec(404, "list its directory with GET /v1/sandboxes/{id}/files/list"),
  route_not_found: spec(404, "see GET /openapi.json for the routes"),
  method_not_allowed: spec(405, "see GET /openapi.json for the methods of this path"),
  request_timeout: spec(408, "send the whole request at once", 1),
  file_exists: spec(409, "choose another name, or leave exclusive out to replace it"),
  not_a_directory: spec(409, "name a directory; a part of the path is something else"),
  is_a_directory: spec(409, "name a file in it, or list it"),
  not_a_file: spec(409, "use a command for devices, pipes and files of the kernel"),
  directory_not_empty: spec(409, "remove what is in it, or ask with recursive=true"),
  snapshot_exists: spec(409, "choose another tag, or remove this one with: forkd rmi TAG"),
  snapshot_not_ready: spec(409, "wait until GET /v1/snapshots shows status ready"),
  snapshot_incomplete: spec(409, "remove it with forkd rmi TAG and bake it again"),
  snapshot_corrupt: spec(409, "restore the file from a backup, or remove and bake it again"),
  chain_too_long: spec(409, "make a base of it: forkd snapshot-compact --from TAG --to NEW"),
  snapshot_in_use: spec(409, "remove its children first: forkd rmi --cascade TAG"),
  scratch_unavailable: spec(409, "bake it with a disk: forkd from-image --scratch-mib MIB"),
  snapshot_incompatible: spec(409, "bake the snapshot again on this host"),
  sandbox_ended: spec(409, "spawn a new one with: forkd spawn --tag TAG"),
  branch_budget_exceeded: spec(409, "raise max_pause_ms, or branch when the guest writes less", 1),
  netns_unavailable: spec(409, "make namespaces with: sudo forkd netns setup N"),
  live_unsupported: spec(409, "branch with mode diff, or run on a kernel of 6.7 or newer"),
  sandbox_busy: spec(409, "retry after the time in Retry-After", 1),
  limit_unavailable: spec(409, "leave require_limits out to run without; see docs/host-limits.md"),
  payload_too_large: spec(413, "send a smaller body; the bounds are in docs/limits.md"),
  unsupported_media_type: spec(415, "send Content-Type: application/json"),
  pack_invalid: spec(422, "make or fetch the pack again: what is there is damaged, or is no pack"),
  range_not_satisfiable: spec(416, "ask for a range that begins within the file"),
  image_invalid: spec(422, "see the forms that forkd from-image --help lists"),
  warmup_failed: spec(422, "run the warm-up by hand in the image and mend what it prints"),
  upgrade_required: spec(426, "open a WebSocket there; docs/exec.md has the messages"),
  headers_too_large: spec(431, "send fewer or shorter headers"),
  too_many_requests: spec(429, "retry after the time in Retry-After", 1),
  client_gone: spec(499, "keep the connection open until the answer is there"),
  internal: spec(500, "see the daemon's log; please report it with the output of forkd where"),
  engine_failed: spec(500, "retry; if it fails again, report what the VMM printed", 1),
  disk_shared: spec(500, "the VM was ended before it ran; report it with the daemon's log"),
  identity_failed: spec(500, "the guest was killed because it could not be made unique; retry", 1),
  exec_failed: spec(500, "check that the guest answers: forkd ping --id ID"),
  file_failed: spec(500, "look at the file with a command: forkd exec --id ID -- ls -l PATH"),
  tool_failed: spec(500, "run the command that the message names by hand"),
  state_corrupt: spec(500, "look at the file, then move it aside with: forkd leaks --fix"),
  config_invalid: spec(500, "see the options with: forkd-controller serve --help"),
  registry_unreachable: spec(502, "check the network and the registry's address", 5),
  remote_unreachable: spec(502, "check the address and the network, then run it again", 5),
  remote_refused: spec(502, "check the credentials; a presigned address is good for a time only"),
  remote_not_found: spec(404, "check the address; what a hub has: forkd hub ls"),
  remote_exists: spec(409, "choose another name, or replace it with --force"),
  remote_corrupt: spec(422, "ask who published it for a whole file and its SHA-256"),
  hub_invalid: spec(422, "ask who runs the hub to make its index again: forkd hub index DIR"),
  engine_unavailable: spec(503, "install QEMU: apt-get install qemu-system-x86"),
  daemon_unreachable: spec(503, "start it with: forkd-controller serve; see FORKD_URL", 1),
  agent_unavailable: spec(503, "retry; if it stays so, kill the sandbox and fork again", 1),
  busy: spec(503, "retry after the time in Retry-After", 1),
  tool_missing: spec(503, "install what the message names"),
  address_in_use: spec(503, "stop the other program, or choose another address with --bind"),
  data_dir_locked: spec(503, "stop the other daemon, or choose another data directory"),
  permission_denied: spec(503, "run as root, or choose a data directory that you own"),
  deadline_exceeded: spec(504, "retry with a longer timeout", 1),
  warmup_timeout: spec(504, "raise --warm-timeout-secs, or check the readiness probe"),
  guest_disk_full: spec(507, "free space in the guest, or fork a snapshot with a larger disk"),
  out_of_memory: spec(507, "raise memory_limit_mib, or free memory of the host"),
  disk_full: spec(507, "free space, or choose another data directory with FORKD_DATA_DIR", 30),
} as const satisfies Record<string, ErrorSpec>;

export type ErrorCode = keyof typeof errorTable;

/** The wire form of a failure. `error` is for people, `code` for programs, `hint` is what to do. */
export interface Problem {
  readonly error: string;
  readonly code: ErrorCode;
  readonly hint: string;
}

export interface ForkdErrorOptions {
  readonly hint?: string;
  /** For a thrower that knows better than the table when to come again. */
  readonly retryAfterSecs?: number;
  readonly cause?: unknown;
}

/** The one error class that crosses a boundary of forkd (HTTP, CLI, SDK). */
export class ForkdError extends Error {
  readonly code: ErrorCode;
  readonly hint: string;
  /** Seconds after which the same request may succeed; null when it will not. */
  readonly retryAfterSecs: number | null;

  constructor(code: ErrorCode, message: string, options: ForkdErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = "ForkdError";
    this.code = code;
    this.hint = options.hint ?? errorTable[code].hint;
    this.retryAfterSecs = options.retryAfterSecs ?? errorTable[code].retryAfterSecs;
  }

  get status(): number {
    return errorTable[this.code].status;
  }

  get retryable(): boolean {
    return this.retryAfterSecs !== null;
  }

  /** The same failure with words in front of its message, for callers that know more. */
  within(prefix: string): ForkdError {
    return new ForkdError(this.code, `${prefix}: ${this.message}`, {
      hint: this.hint,
      ...(this.retryAfterSecs !== null && { retryAfterSecs: this.retryAfterSecs }),
      cause: this,
    });
  }

  toProblem(): Problem {
    return { error: this.message, code: this.code, hint: this.hint };
  }
}

/** Errno names that mean "no space" or "no permission" whoever throws them. */
const errnoCodes: Readonly<Record<string, ErrorCode>> = {
  ENOSPC: "disk_full",
  EDQUOT: "disk_full",
  EACCES: "permission_denied",
  EPERM: "permission_denied",
};

function errnoOf(thrown: unknown): string | undefined {
  if (typeof thrown !== "object" || thrown === null || !("code" in thrown)) return undefined;
  return typeof thrown.code === "string" ? thrown.code : undefined;
}

/** The one door through which anything thrown becomes a {@link ForkdError}. */
export function toForkdError(thrown: unknown): ForkdError {
  if (thrown instanceof ForkdError) return thrown;
  const message = thrown instanceof Error ? thrown.message : String(thrown);
  const code = errnoCodes[errnoOf(thrown) ?? ""] ?? "internal";
  return new ForkdError(code, message, { cause: thrown });
}

/** Whether a string that came over the wire is one of our codes. */
export function isErrorCode(value: string): value is ErrorCode {
  return Object.hasOwn(errorTable, value);
}
