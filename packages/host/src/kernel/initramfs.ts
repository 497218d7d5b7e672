import { promisify } from "node:util";
import { gzip } from "node:zlib";
import { type CpioEntry, writeCpio } from "./cpio.ts";
import type { KernelModule } from "./modules.ts";

/** Changes when the same parts would give another archive. */
export const initramfsFormat = 1;

export interface InitramfsParts {
  /** The static guest agent, which becomes /init. */
  readonly agent: Uint8Array;
  /** In load order. */
  readonly modules: readonly KernelModule[];
  /** Warm runtimes by file name, for example python.py. */
  readonly runtimes: ReadonlyMap<string, Uint8Array>;
}

const mountPoints = ["dev", "proc", "sys", "run", "newroot"];

/** What docs/guest-protocol.md, "Boot", promises the agent to find. */
export function initramfsEntries(parts: InitramfsParts): CpioEntry[] {
  const dirs = [...mountPoints, "forkd", "forkd/modules.d", "forkd/runtime"];
  const moduleFile = (name: string): string => `forkd/modules.d/${name}.ko`;
  const loadOrder = parts.modules.map(({ name }) => `/${moduleFile(name)}\n`).join("");
  return [
    ...dirs.map((name): CpioEntry => ({ kind: "dir", name, mode: 0o755 })),
    // Without a console node the kernel starts /init with closed standard streams.
    { kind: "char", name: "dev/console", mode: 0o600, major: 5, minor: 1 },
    { kind: "file", name: "init", mode: 0o755, data: parts.agent },
    { kind: "file", name: "forkd/modules", mode: 0o644, data: Buffer.from(loadOrder) },
    ...parts.modules.map(
      ({ name, data }): CpioEntry => ({ kind: "file", name: moduleFile(name), mode: 0o644, data }),
    ),
    ...[...parts.runtimes].map(
      ([name, data]): CpioEntry => ({
        kind: "file",
        name: `forkd/runtime/${name}`,
        mode: 0o644,
        data,
      }),
    ),
  ];
}

/** The initramfs, compressed with gzip, which every kernel configuration of interest unpacks. */
export async function buildInitramfs(parts: InitramfsParts): Promise<Buffer> {
  return promisify(gzip)(writeCpio(initramfsEntries(parts)), { level: 9 });
}
