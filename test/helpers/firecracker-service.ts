import assert from "node:assert/strict";
import { join } from "node:path";
import {
  type BranchBody,
  type BranchMode,
  branchRequestSchema,
  parseSnapshotTag,
  type SnapshotTag,
} from "@forkd/api";
import { resolveDataPaths } from "@forkd/host/config/data-paths.ts";
import type { JailPolicy } from "@forkd/host/engine/firecracker/jail.ts";
import { FlatImages } from "@forkd/host/fork/flat-images.ts";
import { openForkService } from "@forkd/host/fork/open-service.ts";
import type { BakeRequest, ForkService } from "@forkd/host/fork/service.ts";
import type { OnStep } from "@forkd/host/fork/steps.ts";
import { silentLogger } from "@forkd/host/lib/log.ts";
import type { FakeFirecracker } from "./fake-firecracker.ts";

export interface FirecrackerServiceOptions {
  readonly fake: FakeFirecracker;
  /** There already, with mode 0700. */
  readonly dataDir: string;
  readonly owner?: "daemon" | "cli";
  readonly jail?: JailPolicy | null;
  readonly onStep?: OnStep;
}

/** A service whose only engine is a stand-in. */
export function openFirecrackerService({
  fake,
  dataDir,
  owner = "daemon",
  jail = null,
  ...rest
}: FirecrackerServiceOptions): Promise<ForkService> {
  const paths = resolveDataPaths({ FORKD_DATA_DIR: dataDir }, 0);
  const flat = new FlatImages(join(paths.cacheDir, "flat"));
  const engine = fake.engine({ jail, flatten: (image) => flat.flatten(image) });
  return openForkService({ paths, owner, log: silentLogger, stateFile: null, engine, ...rest });
}

/** A parent of the stand-in with a warm Python. */
export async function firecrackerBake(
  service: ForkService,
  fake: FakeFirecracker,
  tag: SnapshotTag,
): Promise<BakeRequest> {
  const { kernel, rootImage } = await fake.bootFiles();
  return {
    tag,
    image: await service.importImage(rootImage),
    // The stand-in boots any ELF: without an installed kernel, the user's own is it.
    kernel: { vmlinuz: kernel.vmlinux ?? assert.fail(), initrd: kernel.initrd },
    memoryMib: 64,
    vcpus: 1,
    warm: { runtime: "python", imports: [], command: null, ready: null, timeoutMs: 20_000 },
    replace: false,
  };
}

/** What the API's door makes of a request for a branch. */
export function branchAsked(tag: string, mode: BranchMode): BranchBody {
  return branchRequestSchema.parse({ tag: parseSnapshotTag(tag), mode });
}
