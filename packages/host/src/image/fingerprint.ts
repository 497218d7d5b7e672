import { sha256File } from "../lib/hash.ts";
import { resolveDigest } from "./oci.ts";
import type { ImageRef } from "./ref.ts";
import { runTool } from "./tools.ts";
import { statSource } from "./tree.ts";

const listTimeoutMs = 5 * 60_000;

/**
 * Text that changes when the source of an image does. A Debian suite is named by itself alone: a
 * newer state of the archive is taken on request. Throws image_not_found, image_invalid,
 * registry_unreachable.
 */
export async function fingerprint(ref: ImageRef, signal?: AbortSignal): Promise<string> {
  switch (ref.kind) {
    case "debian":
      return `debian:${ref.suite}`;
    case "registry":
    case "oci":
      return `oci:${await resolveDigest(ref, signal)}`;
    case "docker-archive":
      await statSource(ref.file, "file");
      return `docker-archive:${ref.tag ?? ""}:${await sha256File(ref.file)}`;
    case "tar":
      await statSource(ref.file, "file");
      return `tar:${await sha256File(ref.file)}`;
    case "dir":
      await statSource(ref.dir, "dir");
      return `dir:${await hashListing(ref.dir, signal)}`;
  }
}

/** Type, mode, owner, size, times and link target of everything; a changed attribute moves ctime. */
const listing = "%P\\0%y %m %U %G %s %T@ %C@ %l\\0";

async function hashListing(dir: string, signal: AbortSignal | undefined): Promise<string> {
  const script = `set -e; cd -- "$1"; find . -xdev -printf '${listing}' | sha256sum`;
  const { stdout } = await runTool(["sh", "-c", script, "sh", dir], {
    timeoutMs: listTimeoutMs,
    ...(signal && { signal }),
  });
  return stdout.slice(0, 64);
}
