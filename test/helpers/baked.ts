import { createHash } from "node:crypto";
import { existsSync, globSync, mkdirSync, readFileSync, statSync } from "node:fs";
import { join, resolve } from "node:path";
import { runChild } from "../runner/child.ts";

/** `scratch` is python with a disk of 1 GiB; `large` has one that a file of 1 GiB fits on. */
export type BakedKind = "python" | "node" | "scratch" | "large";

/** A warm snapshot that suites share. Tests fork it and never change or remove it. */
export interface Baked {
  /** For FORKD_DATA_DIR; holds the kernel and the root image too. */
  readonly dataDir: string;
  readonly tag: string;
}

/** What the shared snapshots are baked from, for tests that bake from the image in the store. */
export const bakedImage: readonly string[] = [
  ...["debian:bookworm", "--extra", "python3-numpy", "--extra", "nodejs"],
];

export const repoRoot = resolve(import.meta.dirname, "../..");

/** Where shared snapshots live: FORKD_TEST_DATA_DIR, else inside this checkout. */
export const testDataDir = resolve(
  process.env["FORKD_TEST_DATA_DIR"] ?? join(repoRoot, ".cache/test-data"),
);

/**
 * A snapshot of kind python in the data directory that is taken as it is: a host in a host has what
 * that one baked.
 */
const givenTag = process.env["FORKD_TEST_BAKED"];

/** Bootstrapping, kernel, boot and warm-up on two emulated cores, with room. */
const bakeTimeoutMs = 10 * 60_000;
const outputCharsMax = 8_000;

/** A change to any of these may change what a snapshot holds or how it is restored. */
const ingredients = [
  "guest/build/forkd-agent",
  "guest/runtime/*",
  "native/build/*",
  "packages/host/src/{engine,kernel,agent}/**/*.ts",
  "packages/host/src/store/manifest.ts",
  "packages/host/src/fork/bake.ts",
  "test/helpers/bake-once.ts",
];

function ingredientsHash(): string {
  const hash = createHash("sha256").update(bakedImage.join("\0"));
  for (const path of globSync(ingredients, { cwd: repoRoot }).sort()) {
    if (!statSync(join(repoRoot, path)).isFile()) continue;
    hash.update(`${path}\0`).update(readFileSync(join(repoRoot, path)));
  }
  const qemu = "/usr/bin/qemu-system-x86_64";
  if (existsSync(qemu)) hash.update(String(statSync(qemu).mtimeMs));
  return hash.digest("hex").slice(0, 12);
}

const done = new Map<BakedKind, Promise<Baked>>();

/**
 * The shared snapshot of a kind, baked once a checkout and again when what it is made of changes.
 * Test files that run at the same time wait for one of them. Throws with the CLI's words when the
 * bake fails, and when FORKD_TEST_BAKED names no such snapshot. Needs the capabilities root, qemu,
 * guest-agent and, the first time, network.
 */
export function ensureBaked(kind: BakedKind = "python"): Promise<Baked> {
  const known = done.get(kind);
  if (known !== undefined) return known;
  const baking = bake(kind);
  done.set(kind, baking);
  return baking;
}

const isThere = (tag: string): boolean =>
  existsSync(join(testDataDir, "snapshots", tag, "snapshot.json"));

/** Nothing is baked under another's name. */
function given(kind: BakedKind, tag: string): Baked {
  const problem = kind === "python" ? `is not in ${testDataDir}` : `is of python, not of ${kind}`;
  if (kind !== "python" || !isThere(tag)) throw new Error(`FORKD_TEST_BAKED: ${tag} ${problem}`);
  return { dataDir: testDataDir, tag };
}

async function bake(kind: BakedKind): Promise<Baked> {
  if (givenTag !== undefined) return given(kind, givenTag);
  const tag = `${kind}-${ingredientsHash()}`;
  const baked = { dataDir: testDataDir, tag };
  if (isThere(tag)) return baked;
  mkdirSync(testDataDir, { recursive: true, mode: 0o700 });
  let output = "";
  const keep = (line: string): void => {
    output = `${output}${line}\n`.slice(-outputCharsMax);
  };
  // The kernel releases the lock of a process that dies, so there is nothing to clean up.
  const lock = ["flock", "--exclusive", join(testDataDir, ".bake-lock")];
  const worker = [join(repoRoot, "scripts/node"), join(repoRoot, "test/helpers/bake-once.ts")];
  const end = await runChild([...lock, ...worker, kind, tag], {
    cwd: repoRoot,
    env: { ...process.env, FORKD_DATA_DIR: testDataDir, FORKD_URL: undefined },
    deadlineMs: bakeTimeoutMs,
    onStdoutLine: keep,
    onStderrLine: keep,
  });
  if (end.code === 0) return baked;
  const how = end.timedOut ? `took over ${bakeTimeoutMs} ms` : `ended with ${end.code}`;
  throw new Error(`baking the shared ${kind} snapshot ${how}:\n${output}`);
}
