import { open, readFile } from "node:fs/promises";

export interface RamRange {
  readonly offset: number;
  readonly bytes: number;
}

/**
 * RAM of a running guest, by its VMM's memory: proc_pid_maps(5), proc_pid_mem(5). Undefined while
 * nothing of the RAM's size is mapped.
 */
export async function liveRam(
  pid: number,
  ramBytes: number,
  { offset, bytes }: RamRange,
): Promise<Buffer | undefined> {
  for (const line of (await readFile(`/proc/${pid}/maps`, "utf8")).split("\n")) {
    const [, from = "", to = ""] = /^([0-9a-f]+)-([0-9a-f]+) rw/.exec(line) ?? [];
    const start = Number.parseInt(from, 16);
    if (Number.parseInt(to, 16) - start !== ramBytes) continue;
    await using memory = await open(`/proc/${pid}/mem`, "r");
    return (await memory.read(Buffer.alloc(bytes), 0, bytes, start + offset)).buffer;
  }
  return undefined;
}
