import { run } from "../../lib/exec.ts";
import { nativeTool } from "../../lib/native.ts";

/** One call of ip or nft; the kernel's locks make them queue when hundreds are made. */
const stepTimeoutMs = 60_000;

/** The words that run a program inside a namespace; null: in ours. */
function inside(netns: string | null, argv: readonly string[]): readonly string[] {
  return netns === null ? argv : [nativeTool("forkd-launch"), "--netns", netns, "--", ...argv];
}

/** Puts nftables' rules in force, all or none. Throws tool_failed, tool_missing. */
export async function loadRules(rules: string, netns: string | null): Promise<void> {
  await run(inside(netns, ["nft", "-f", "-"]), { input: rules, timeoutMs: stepTimeoutMs });
}

/** Runs commands of ip(8), one a line, up to the first that fails. */
export async function runIp(
  lines: readonly string[],
  options: { readonly netns?: string | null; readonly timeoutMs?: number } = {},
): Promise<void> {
  if (lines.length === 0) return;
  const { netns = null, timeoutMs = stepTimeoutMs } = options;
  const input = `${lines.join("\n")}\n`;
  await run(inside(netns, ["ip", "-batch", "-"]), { input, timeoutMs });
}

/** Runs lines of sh(1) inside of a namespace, up to the first that fails. */
export async function runShell(script: string, netns: string): Promise<void> {
  await run(inside(netns, ["sh", "-eu"]), { input: script, timeoutMs: stepTimeoutMs });
}
