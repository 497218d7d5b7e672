import { ForkdError } from "@forkd/api";
import type { Finish, UnpackScope } from "./scope.ts";
import type { Archive } from "./source.ts";
import type { UpstreamManifest } from "./upstream-manifest.ts";

export async function takeUpstreamPack(
  _scope: UnpackScope,
  _manifest: UpstreamManifest,
  _archive: Archive,
): Promise<Finish> {
  throw new ForkdError("pack_invalid", "packs of upstream's are not read yet");
}
