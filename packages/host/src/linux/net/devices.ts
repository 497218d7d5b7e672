import { readFile } from "node:fs/promises";

/** Names of the network devices of our namespace; /sys may have been mounted in another one. */
export async function deviceList(): Promise<ReadonlySet<string>> {
  const text = await readFile("/proc/self/net/dev", "utf8");
  return new Set(text.split("\n").flatMap((line) => /^\s*([^\s:]+):/.exec(line)?.[1] ?? []));
}
