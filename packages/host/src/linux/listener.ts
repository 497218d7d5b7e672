import { readdir, readFile } from "node:fs/promises";
import { openFiles } from "./proc.ts";

export interface Listener {
  readonly pid: number;
  /** Its command line, shortened. */
  readonly command: string;
}

/** State LISTEN in /proc/net/tcp (include/net/tcp_states.h). */
const listenState = "0A";
const commandLengthMax = 200;

/** Socket inodes that listen on a port, from the text of /proc/net/tcp or tcp6 (proc(5)). */
export function parseListeners(text: string, port: number): readonly string[] {
  const hexPort = port.toString(16).toUpperCase().padStart(4, "0");
  return text
    .split("\n")
    .map((line) => line.trim().split(/\s+/))
    .filter((fields) => fields[1]?.endsWith(`:${hexPort}`) && fields[3] === listenState)
    .flatMap((fields) => fields[9] ?? []);
}

/** Whether anybody listens on a TCP port, also somebody whom this user may not see. */
export async function hasListener(port: number): Promise<boolean> {
  return (await listenerInodes(port)).length > 0;
}

/** Who listens on a TCP port, as far as /proc lets this user see. */
export async function findListener(port: number): Promise<Listener | undefined> {
  const inodes = await listenerInodes(port);
  if (inodes.length === 0) return undefined;
  const targets = new Set(inodes.map((inode) => `socket:[${inode}]`));
  for (const name of await readdir("/proc")) {
    if (/^\d+$/.test(name) && (await holdsAny(Number(name), targets))) {
      return { pid: Number(name), command: await commandLine(name) };
    }
  }
  return undefined;
}

async function listenerInodes(port: number): Promise<string[]> {
  const tables = await Promise.all(["tcp", "tcp6"].map((name) => readOrEmpty(`/proc/net/${name}`)));
  return tables.flatMap((text) => parseListeners(text, port));
}

async function commandLine(pid: string): Promise<string> {
  const words = (await readOrEmpty(`/proc/${pid}/cmdline`)).split("\0").join(" ").trim();
  return words.length <= commandLengthMax ? words : `${words.slice(0, commandLengthMax)}...`;
}

async function holdsAny(pid: number, targets: ReadonlySet<string>): Promise<boolean> {
  const files = await openFiles(pid).catch(() => new Map<number, string>());
  return [...files.values()].some((target) => targets.has(target));
}

async function readOrEmpty(path: string): Promise<string> {
  return await readFile(path, "utf8").catch(() => "");
}
