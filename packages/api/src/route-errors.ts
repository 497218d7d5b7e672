import type { ErrorCode } from "./errors.ts";

/** Failures that several rows of the route table have in common. */
export const spawnErrors = [
  "invalid_count",
  "invalid_tag",
  "snapshot_not_found",
  "snapshot_not_ready",
  "snapshot_incomplete",
  "snapshot_corrupt",
  "snapshot_incompatible",
  "netns_unavailable",
  "engine_unavailable",
  "engine_failed",
  "identity_failed",
  "too_many_requests",
  "busy",
  "disk_full",
] as const satisfies readonly ErrorCode[];

export const guestErrors = [
  "sandbox_not_found",
  "sandbox_ended",
  "agent_unavailable",
  "deadline_exceeded",
  "too_many_requests",
] as const satisfies readonly ErrorCode[];

export const branchErrors = [
  "bad_request",
  "invalid_tag",
  "snapshot_exists",
  "snapshot_not_found",
  "snapshot_incomplete",
  "snapshot_corrupt",
  "chain_too_long",
  "sandbox_not_found",
  "sandbox_ended",
  "sandbox_busy",
  "busy",
  "engine_failed",
  "disk_full",
  "deadline_exceeded",
] as const satisfies readonly ErrorCode[];

export const fileErrors = [
  ...guestErrors,
  "bad_request",
  "file_not_found",
  "file_denied",
  "not_a_directory",
  "file_failed",
  "exec_failed",
] as const satisfies readonly ErrorCode[];

export const fileChangeErrors = [
  ...fileErrors,
  "file_exists",
  "is_a_directory",
  "guest_disk_full",
] as const satisfies readonly ErrorCode[];
