/**
 * Builds the release: `scripts/node scripts/release.ts [--out DIR] [--version X.Y.Z]`.
 * DIR, dist when absent, gets forkd-vX.Y.Z-x86_64-linux.tar.gz, forkd_X.Y.Z_amd64.deb, SHA256SUMS.
 * Two builds of one commit have the same bytes; SOURCE_DATE_EPOCH sets the time of their files.
 */
import { mkdir, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join, resolve } from "node:path";
import { run } from "@forkd/host/lib/exec.ts";
import { readArgs } from "../test/runner/args.ts";
import { packTar, sha256 } from "./release/archive.ts";
import { packDeb } from "./release/deb.ts";
import { buildTree } from "./release/tree.ts";

const root = resolve(import.meta.dirname, "..");
const programs = ["forkd", "forkd-controller", "forkd-mcp"];

const usage = "scripts/node scripts/release.ts [--out DIR] [--version X.Y.Z]";
const { values } = readArgs(usage, {
  options: {
    out: { type: "string", default: join(root, "dist") },
    version: { type: "string" },
  },
});

async function ownVersion(): Promise<string> {
  const manifest: unknown = JSON.parse(await readFile(join(root, "package.json"), "utf8"));
  if (typeof manifest === "object" && manifest !== null && "version" in manifest) {
    return String(manifest.version);
  }
  throw new Error("package.json has no version");
}

/** Unix seconds: what was asked for, else the time of the last commit. */
async function sourceEpoch(): Promise<number> {
  const asked = process.env["SOURCE_DATE_EPOCH"];
  const text = asked || (await run(["git", "-C", root, "log", "-1", "--format=%ct"])).stdout;
  const epoch = Number(text);
  if (Number.isSafeInteger(epoch) && epoch >= 0) return epoch;
  throw new Error(`SOURCE_DATE_EPOCH is no time in unix seconds: ${text}`);
}

/**
 * The tree below a directory that names its version, and links beside it: unpacked over an older
 * release, it leaves that one's files to the daemon that still runs them.
 */
async function packTarball(path: string, treeDir: string, epoch: number): Promise<void> {
  const top = resolve(treeDir, "..");
  for (const name of programs) {
    await symlink(`${basename(treeDir)}/bin/${name}`, join(top, name));
  }
  await packTar(top, path, epoch);
}

async function release(out: string, version: string, workDir: string): Promise<string[]> {
  const epoch = await sourceEpoch();
  const [buildDir, stageDir] = [join(workDir, "build"), join(workDir, "deb")];
  const treeDir = join(workDir, "tar", `forkd-v${version}`);
  for (const dir of [buildDir, stageDir, treeDir, out]) await mkdir(dir, { recursive: true });
  await buildTree(treeDir, { root, buildDir, version });
  const tarball = join(out, `forkd-v${version}-x86_64-linux.tar.gz`);
  const deb = join(out, `forkd_${version}_amd64.deb`);
  await packDeb(deb, { root, treeDir, stageDir, version, epoch });
  await packTarball(tarball, treeDir, epoch);
  return [tarball, deb];
}

const workDir = await mkdtemp(join(tmpdir(), "forkd-release-"));
try {
  const out = resolve(values.out);
  const paths = await release(out, values.version ?? (await ownVersion()), workDir);
  const lines = await Promise.all(
    paths.map(async (path) => `${await sha256(path)}  ${basename(path)}\n`),
  );
  await writeFile(join(out, "SHA256SUMS"), lines.join(""));
  process.stdout.write(lines.join(""));
} finally {
  await rm(workDir, { recursive: true, force: true });
}
