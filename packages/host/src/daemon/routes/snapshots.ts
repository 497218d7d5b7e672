import { stat } from "node:fs/promises";
import { isAbsolute } from "node:path";
import { type CreateSnapshot, ForkdError, limits } from "@forkd/api";
import type { BakeRequest, ForkService, RemoveMode } from "../../fork/service.ts";
import type { Logger } from "../../lib/log.ts";
import { Gate } from "../gate.ts";
import type { RouteHandlers } from "../register.ts";

type SnapshotRoutes = Pick<
  RouteHandlers,
  | "listSnapshots"
  | "createSnapshot"
  | "deleteSnapshot"
  | "getSnapshotInfo"
  | "compactSnapshot"
  | "getLineage"
>;

/** A bake takes from seconds to minutes. */
const bakeRetryAfterSecs = 15;

export function snapshotRoutes(service: ForkService, log: Logger): SnapshotRoutes {
  const bakes = new Gate(
    limits.concurrentBakesMax,
    () =>
      new ForkdError("busy", `${limits.concurrentBakesMax} snapshots are being made already`, {
        retryAfterSecs: bakeRetryAfterSecs,
      }),
  );
  return {
    listSnapshots: () => service.listSnapshots(),
    createSnapshot: ({ body }) =>
      bakes.run(async () => {
        const request = await planBake(service, body);
        return service.bake(request, (message) => log.info(message, { tag: body.tag }));
      }),
    deleteSnapshot: async ({ params, query }) => {
      await service.deleteSnapshot(params.tag, removeMode(query));
      return undefined;
    },
    getSnapshotInfo: ({ params }) => service.snapshotInfo(params.tag),
    compactSnapshot: ({ params, body }) => {
      if (body.to === params.tag) {
        throw new ForkdError("bad_request", "a snapshot cannot be compacted into itself", {
          hint: "choose another tag for the result",
        });
      }
      return bakes.run(() => service.compactSnapshot(params.tag, body.to));
    },
    getLineage: () => service.lineage(),
  };
}

function removeMode(query: { readonly cascade: boolean; readonly force: boolean }): RemoveMode {
  if (query.cascade && query.force) {
    throw new ForkdError("bad_request", "only one of cascade and force can be true");
  }
  if (query.cascade) return "cascade";
  return query.force ? "orphan" : "refuse";
}

/** A bare root image: no image configuration, no warm interpreter; warm once the agent answers. */
async function planBake(service: ForkService, body: CreateSnapshot): Promise<BakeRequest> {
  await requireFile("kernel", body.kernel);
  await requireFile("rootfs", body.rootfs);
  return {
    tag: body.tag,
    image: await service.importImage(body.rootfs),
    kernel: { vmlinuz: body.kernel, initrd: null },
    memoryMib: limits.memoryDefaultMib,
    vcpus: 1,
    ...(body.scratch_mib == null ? {} : { scratchMib: body.scratch_mib }),
    warm: {
      runtime: null,
      imports: [],
      command: null,
      ready: null,
      timeoutMs: limits.warmTimeoutDefaultSecs * 1000,
    },
    replace: false,
  };
}

/** Devices and pipes are refused with all that is no regular file: a token must not open those. */
async function requireFile(field: string, path: string): Promise<void> {
  const facts = isAbsolute(path) ? await stat(path).catch(() => undefined) : undefined;
  if (facts?.isFile() === true) return;
  throw new ForkdError("bad_request", `${field}: ${path} is not a file of the daemon's host`, {
    hint: "give the absolute path of an existing file",
  });
}
