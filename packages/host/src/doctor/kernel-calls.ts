import { run } from "../lib/exec.ts";
import { nativeTool } from "../lib/native.ts";

/** The calls that forkd-probe tries; native/forkd-probe.c says what each is. */
export type KernelCall =
  | "userfaultfd"
  | "uffd-wp-private"
  | "uffd-wp-shmem"
  | "pagemap-scan"
  | "memfd"
  | "clock";

const probeTimeoutMs = 4_000;

/** What the kernel said to each call: null when it works. Throws tool_missing, tool_failed. */
export async function tryKernelCalls(): Promise<ReadonlyMap<string, string | null>> {
  const { stdout } = await run([nativeTool("forkd-probe")], { timeoutMs: probeTimeoutMs });
  const lines = [...stdout.matchAll(/^(\S+) (ok|\d+ .+)$/gm)];
  return new Map(
    lines.map(([, name = "", said = ""]) => [
      name,
      said === "ok" ? null : said.replace(/^\d+ /, ""),
    ]),
  );
}

/** The kernel's reason why a call does not work; undefined when it does. */
export async function refusalOf(...calls: readonly KernelCall[]): Promise<string | undefined> {
  const said = await tryKernelCalls();
  for (const call of calls) {
    const reason = said.has(call) ? said.get(call) : "it was not tried";
    if (reason != null) return `${call}: ${reason}`;
  }
  return undefined;
}
