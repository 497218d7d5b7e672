import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { pipeline } from "node:stream/promises";
import { run } from "@forkd/host/lib/exec.ts";

/** Every choice that would make two archives of one tree differ is made here. */
const sameBytes = ["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--format=gnu"];

/** Packs the entries of `dir` as PATH, each with the time `epoch`, in unix seconds. */
export async function packTar(dir: string, path: string, epoch: number): Promise<void> {
  const options = [...sameBytes, `--mtime=@${epoch}`, "--use-compress-program=gzip -n -6"];
  const { stdout } = await run(["ls", "-A", dir]);
  const names = stdout.trim().split("\n").sort();
  await run(["tar", "--create", ...options, `--file=${path}`, `--directory=${dir}`, ...names]);
}

/** Lower-case hex. */
export async function sha256(path: string): Promise<string> {
  const hash = createHash("sha256");
  await pipeline(createReadStream(path), hash);
  return hash.digest("hex");
}
