import { constants } from "node:fs";
import { access, readFile, realpath, rename } from "node:fs/promises";
import { dirname, join } from "node:path";
import { z } from "zod";
import { isErrno, publishDir, writeFileAtomic } from "../lib/atomic.ts";

/** The part of the data paths that this store needs. */
export interface FirecrackerPaths {
  readonly dataDir: string;
}

/** Programs of one release; absolute paths. */
export interface InstalledFirecracker {
  readonly firecracker: string;
  readonly jailer: string | null;
}

const recordSchema = z.strictObject({
  format: z.literal(1),
  version: z.string().regex(/^\d{1,4}\.\d{1,4}\.\d{1,4}$/),
  installed_at_unix: z.int(),
  /** What the operator named, and what they said that it hashes to. */
  origin: z.string().max(4096),
  origin_sha256: z.string().regex(/^[0-9a-f]{64}$/),
  sha256: z.strictObject({
    firecracker: z.string().regex(/^[0-9a-f]{64}$/),
    jailer: z
      .string()
      .regex(/^[0-9a-f]{64}$/)
      .nullable(),
  }),
});

/** `install.json` beside the programs. */
export type FirecrackerRecord = Readonly<z.infer<typeof recordSchema>>;

/** Paths of the programs of this host; docs/firecracker.md. */
export const firecrackerFiles = {
  dir: ({ dataDir }: FirecrackerPaths): string => join(dataDir, "firecracker"),
  staging: (paths: FirecrackerPaths): string => join(firecrackerFiles.dir(paths), ".staging"),
  pointer: (paths: FirecrackerPaths): string => join(firecrackerFiles.dir(paths), "default"),
  firecracker: (dir: string): string => join(dir, "firecracker"),
  jailer: (dir: string): string => join(dir, "jailer"),
  record: (dir: string): string => join(dir, "install.json"),
} as const;

const idPattern = /^\d{1,4}\.\d{1,4}\.\d{1,4}-[0-9a-f]{12}$/;

/** The name of a release's directory: the same version may come as other bytes. */
export function firecrackerId({ version, sha256 }: FirecrackerRecord): string {
  return `${version}-${sha256.firecracker.slice(0, 12)}`;
}

/** What was installed last; undefined when nothing is, or its directory is damaged. */
export async function findInstalledFirecracker(
  paths: FirecrackerPaths,
): Promise<InstalledFirecracker | undefined> {
  try {
    const id = (await readFile(firecrackerFiles.pointer(paths), "utf8")).trim();
    if (!idPattern.test(id)) return undefined;
    const dir = join(firecrackerFiles.dir(paths), id);
    recordSchema.parse(JSON.parse(await readFile(firecrackerFiles.record(dir), "utf8")));
    return await programsIn(dir);
  } catch {
    return undefined;
  }
}

/** Firecracker in a directory with the jailer that may be beside it. Throws ENOENT, EACCES. */
async function programsIn(dir: string): Promise<InstalledFirecracker> {
  const firecracker = firecrackerFiles.firecracker(dir);
  await access(firecracker, constants.X_OK);
  return { firecracker, jailer: await executable(firecrackerFiles.jailer(dir)) };
}

async function executable(path: string): Promise<string | null> {
  return await access(path, constants.X_OK).then(
    () => path,
    () => null,
  );
}

/** A program that the operator named or that PATH has; its jailer is beside the real file. */
export async function locateFirecracker(path: string): Promise<InstalledFirecracker | undefined> {
  const real = await realpath(path).catch(() => undefined);
  if (real === undefined || (await executable(real)) === null) return undefined;
  return { firecracker: real, jailer: await executable(firecrackerFiles.jailer(dirname(real))) };
}

/**
 * Makes a staged directory the release of its record and the default. The same release by content
 * is kept; a damaged one is moved beside the staged directory, whose parent the caller removes.
 */
export async function publishFirecracker(
  paths: FirecrackerPaths,
  staging: string,
  record: FirecrackerRecord,
): Promise<InstalledFirecracker> {
  const text = `${JSON.stringify(recordSchema.parse(record), null, 2)}\n`;
  await writeFileAtomic(firecrackerFiles.record(staging), text, { mode: 0o644 });
  const id = firecrackerId(record);
  const target = join(firecrackerFiles.dir(paths), id);
  await rename(target, join(dirname(staging), "replaced")).catch((error: unknown) => {
    if (!isErrno(error, "ENOENT")) throw error;
  });
  await publishDir(staging, target);
  await writeFileAtomic(firecrackerFiles.pointer(paths), `${id}\n`, { mode: 0o644 });
  return await programsIn(target);
}
