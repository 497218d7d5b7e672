import { readFile, stat } from "node:fs/promises";
import { ForkdError } from "@forkd/api";
import { unescapePath } from "./hierarchies.ts";

/**
 * The whole disk under a path, as `MAJOR:MINOR`: what the kernel throttles. Throws tool_failed
 * with the reason when the path's file system has no single block device.
 */
export async function blockDeviceOf(path: string): Promise<string> {
  const { dev } = await stat(path, { bigint: true });
  const number = await deviceUnder(path, splitDevice(dev));
  return await wholeDisk(number);
}

/** Linux's encoding of a device number in st_dev (makedev(3)). */
export function splitDevice(dev: bigint): string {
  const major = ((dev >> 8n) & 0xfffn) | ((dev >> 32n) & ~0xfffn);
  const minor = (dev & 0xffn) | ((dev >> 12n) & ~0xffn);
  return `${major}:${minor}`;
}

/** Btrfs and overlays show a number with major 0: then the device that was mounted counts. */
async function deviceUnder(path: string, number: string): Promise<string> {
  if (!number.startsWith("0:")) return number;
  const mountinfo = await readFile("/proc/self/mountinfo", "utf8");
  const { type, source } = mountOf(mountinfo, number) ?? { type: "unknown", source: "" };
  const device = source.startsWith("/dev/") ? await stat(source, { bigint: true }) : undefined;
  if (device?.isBlockDevice() === true) return splitDevice(device.rdev);
  throw new ForkdError("tool_failed", `${path} is on ${type}, which has no block device`);
}

/** Type and source of the mount with this device number. */
export function mountOf(
  mountinfo: string,
  number: string,
): { readonly type: string; readonly source: string } | undefined {
  for (const line of mountinfo.split("\n")) {
    const [left = "", right = ""] = line.split(" - ");
    if (left.split(" ")[2] !== number) continue;
    const [type = "", source = ""] = right.split(" ");
    return { type, source: unescapePath(source) };
  }
  return undefined;
}

async function wholeDisk(number: string): Promise<string> {
  const dir = `/sys/dev/block/${number}`;
  const isPart = await stat(`${dir}/partition`).then(
    () => true,
    () => false,
  );
  return isPart ? (await readFile(`${dir}/../dev`, "utf8")).trim() : number;
}
