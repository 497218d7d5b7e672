import { writeFile } from "node:fs/promises";
import { setPriority } from "node:os";
import { run } from "../lib/exec.ts";
import { findProcess } from "./proc.ts";

/**
 * Three times the processor time of what has 0 (sched(7)), when both want it: enough to run at once
 * when something comes, and no more than that for somebody who has much to do.
 */
const raisedNice = -5;
const chrtTimeoutMs = 5_000;

/** How a process stands against others on its processors. */
export interface Standing {
  /** Of the thread that runs the event loop. */
  readonly nice: number;
  /** Whether the whole session has it too, against other sessions. */
  readonly session: boolean;
  /** Why it is not what {@link goFirst} wanted; null when it is. */
  readonly reason: string | null;
}

/**
 * Has the event loop's thread run before other programs, the guests first of all: under load it
 * would wait for each of them. What it starts, threads too, stands where it would have stood: the
 * kernel puts that back at each fork (sched(7), SCHED_RESET_ON_FORK). Where sessions share the
 * processors (sched(7), autogroups), that of a daemon, which is its own, goes first as well; what
 * it starts gets sessions of their own. Leaves alone what somebody has set.
 */
export async function goFirst(): Promise<Standing> {
  const before = findProcess(process.pid);
  const nice = before?.nice ?? 0;
  if (nice !== 0) return { nice, session: false, reason: "it was set by whoever started us" };
  try {
    const pid = String(process.pid);
    await run(["chrt", "--other", "--reset-on-fork", "--pid", "0", pid], {
      timeoutMs: chrtTimeoutMs,
    });
    setPriority(raisedNice);
  } catch (error) {
    return { nice, session: false, reason: error instanceof Error ? error.message : String(error) };
  }
  const session = before?.session === process.pid && (await raiseSession());
  return { nice: raisedNice, session, reason: null };
}

/** A kernel that does not share by sessions has no such file. */
async function raiseSession(): Promise<boolean> {
  return await writeFile("/proc/self/autogroup", String(raisedNice), { flag: "r+" }).then(
    () => true,
    () => false,
  );
}
