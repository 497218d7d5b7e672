import assert from "node:assert/strict";
import { readFileSync } from "node:fs";

/** A field of a process's status, see proc_pid_status(5). */
export function statusOf(pid: number, field: string): string {
  const text = readFileSync(`/proc/${pid}/status`, "utf8");
  return new RegExp(`^${field}:[ \\t]*(.*)$`, "m").exec(text)?.[1] ?? assert.fail(field);
}
