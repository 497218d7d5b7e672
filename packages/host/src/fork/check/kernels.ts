import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import type { ErrorCode } from "@forkd/api";
import { sha256File } from "../../lib/hash.ts";
import { keptDir } from "../../store/boot-files.ts";
import { undefinedIfMissing } from "../../store/files.ts";
import {
  findDefaultKernel,
  initrdsDir,
  kernelFiles,
  listKernels,
  type StoredKernel,
} from "../../store/kernels.ts";
import { type CheckScope, type Fault, type FaultKind, type Findings, together } from "./fault.ts";

const installHint = "install it again with: forkd kernel install";
/** What else is among the kernels' directories. */
const otherNames: readonly string[] = ["default", "initrds", "kept"];
const sha256Pattern = /^[0-9a-f]{64}$/;

/** Installed kernels and initramfs images: whether their bytes are what was installed. */
export async function checkKernels(scope: CheckScope): Promise<Findings> {
  const kernels = await listKernels(scope.paths);
  const files = [
    ...kernels.flatMap(filesOf),
    ...(await namedFiles(initrdsDir(scope.paths), ".img")),
    ...(await namedFiles(keptDir(scope.paths), "")),
  ];
  const findings: Findings[] = [];
  for (const file of files) {
    scope.signal.throwIfAborted();
    findings.push(await checkFile(file));
  }
  const faults = [
    ...(await brokenKernels(scope, kernels)),
    ...(await brokenDefault(scope, kernels.length)),
  ];
  return together([...findings, { checked: kernels.length, bytes: 0, faults }]);
}

interface HashedFile {
  readonly kind: FaultKind;
  readonly path: string;
  readonly sha256: string;
  readonly hint: string;
}

function filesOf({ dir, record }: StoredKernel): HashedFile[] {
  const { vmlinuz, vmlinux } = record.sha256;
  const all = [
    { path: kernelFiles.vmlinuz(dir), sha256: vmlinuz },
    { path: kernelFiles.vmlinux(dir), sha256: vmlinux },
    ...record.modules.map(({ name, sha256 }) => ({ path: kernelFiles.module(dir, name), sha256 })),
  ];
  return all.map((file) => ({ ...file, kind: "kernel", hint: installHint }));
}

/** Files that have the hash of their bytes for a name. */
async function namedFiles(dir: string, suffix: string): Promise<HashedFile[]> {
  const names = (await readdir(dir).catch(undefinedIfMissing)) ?? [];
  return names.flatMap((name): HashedFile[] => {
    const sha256 = name.endsWith(suffix) ? name.slice(0, name.length - suffix.length) : "";
    const path = join(dir, name);
    const hint = `remove it, and what needs it makes or fetches it again: rm ${path}`;
    return sha256Pattern.test(sha256) ? [{ kind: "initrd", path, sha256, hint }] : [];
  });
}

async function checkFile({ kind, path, sha256, hint }: HashedFile): Promise<Findings> {
  const stats = await stat(path).catch(undefinedIfMissing);
  const found = stats?.isFile() ? await sha256File(path) : undefined;
  const bytes = stats?.size ?? 0;
  if (found === sha256) return { checked: 0, bytes, faults: [] };
  const why = found === undefined ? "it is missing" : `it hashes to ${found}, not to ${sha256}`;
  const code: ErrorCode = found === undefined ? "snapshot_incomplete" : "snapshot_corrupt";
  return { checked: 0, bytes, faults: [{ kind, what: path, code, why, hint }] };
}

async function brokenKernels(
  { paths }: CheckScope,
  whole: readonly StoredKernel[],
): Promise<Fault[]> {
  const names = (await readdir(paths.kernelsDir).catch(undefinedIfMissing)) ?? [];
  const known = new Set([...otherNames, ...whole.map(({ record }) => record.id)]);
  const broken = names.filter((name) => !known.has(name) && !name.startsWith("."));
  return broken.map((name) => ({
    kind: "kernel",
    what: join(paths.kernelsDir, name),
    code: "kernel_not_found",
    why: "it has no record of a kernel that can be read",
    hint: installHint,
  }));
}

async function brokenDefault({ paths }: CheckScope, kernels: number): Promise<Fault[]> {
  if (kernels === 0 || (await findDefaultKernel(paths)) !== undefined) return [];
  const what = join(paths.kernelsDir, "default");
  const why = "it names no kernel that is here, and new parents cannot boot";
  return [{ kind: "kernel", what, code: "kernel_not_found", why, hint: installHint }];
}
