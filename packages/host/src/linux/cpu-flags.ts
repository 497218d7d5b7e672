import { readFile } from "node:fs/promises";

/** What the kernel says that this host's CPU can do (`flags` of the first one in proc(5) cpuinfo). */
export async function cpuFlags(): Promise<ReadonlySet<string>> {
  const text = await readFile("/proc/cpuinfo", "latin1");
  const [, flags = ""] = /^flags\s*:(.*)$/m.exec(text) ?? [];
  return new Set(flags.split(" ").filter((flag) => flag !== ""));
}
