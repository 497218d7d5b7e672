import { ForkdError, limits, type SnapshotTag } from "@forkd/api";
import type { DataPaths } from "../config/data-paths.ts";
import { identifyProcess } from "../linux/proc.ts";
import type { UnpackOrder, UnpackReport } from "../pack/orders.ts";
import { openRemote, type RemoteAddress } from "../remote/address.ts";
import { type Downloaded, download } from "../remote/download.ts";
import { openHub, packOf } from "../remote/hub.ts";
import type { HubRef } from "../remote/hub-index.ts";
import { PartialFile, sweepPartials } from "../remote/partials.ts";
import type { RemoteObject } from "../remote/remote.ts";
import { acquireBuildLock } from "../store/build-lock.ts";
import { layout } from "../store/layout.ts";
import { type TransferOptions, transferRetry, withTransferDeadline } from "./transfer.ts";

/** Long enough for a pull that just ends; another that runs is not waited for. */
const lockWaitMs = 500;

export interface PullOrder extends TransferOptions {
  readonly paths: DataPaths;
  readonly from: RemoteAddress | { readonly kind: "hub"; readonly hub: URL; readonly ref: HubRef };
  readonly tag: SnapshotTag | null;
  readonly force: boolean;
  /** What the pack must hash to, hex; null: what the remote or the hub says, if it does. */
  readonly sha256: string | null;
  /** Takes a pack into the store; called once the whole of it is here and proven. */
  readonly unpack: (order: UnpackOrder) => Promise<UnpackReport>;
}

export interface PullReport extends UnpackReport {
  readonly from: string;
  readonly size_bytes: number;
  readonly sha256: string;
  /** Whether somebody had said what it must hash to. */
  readonly verified: boolean;
  /** Bytes that an earlier, broken pull had brought. */
  readonly resumed_bytes: number;
}

/**
 * Fetches a pack and unpacks it. What has come stays, out of sight, until it is unpacked: a pull
 * that breaks off goes on where it was when it is run again. Throws busy while another process
 * pulls the same, and what remotes, hubs and unpacking throw.
 */
export function pull(order: PullOrder): Promise<PullReport> {
  return withTransferDeadline(order.signal, async (signal) => {
    const dir = layout.pullsDir(order.paths);
    await sweepPartials(dir, Date.now());
    const source = await locate(order, signal);
    const partial = new PartialFile(dir, source.from.name);
    const lock = await lockPartial(partial, source.from);
    try {
      const downloaded = await fetchPack({ ...order, signal }, source, partial);
      const report = await unpackFrom(order, partial, signal);
      await partial.discard();
      const { sizeBytes: size_bytes, sha256, isProven: verified, resumedBytes } = downloaded;
      const facts = { from: source.from.name, size_bytes, sha256, verified };
      return { ...report, ...facts, resumed_bytes: resumedBytes };
    } finally {
      await lock.release();
    }
  });
}

interface Source {
  readonly from: RemoteObject;
  readonly sha256: string | null;
  readonly sizeBytes: number | null;
}

async function locate(order: PullOrder, signal: AbortSignal): Promise<Source> {
  const { from, sha256, paths, env, onNotice } = order;
  const retry = transferRetry(onNotice);
  if (from.kind !== "hub") {
    return { from: await openRemote(from, { retry, env }), sha256, sizeBytes: null };
  }
  const hub = await openHub(from.hub, { cacheDir: layout.hubsDir(paths), retry, signal, env });
  return packOf(hub, from.ref, { retry, sha256 });
}

async function lockPartial(partial: PartialFile, { name }: RemoteObject) {
  const owner = identifyProcess(process.pid);
  if (owner === undefined) throw new ForkdError("internal", "/proc does not know this process");
  try {
    return await acquireBuildLock(partial.lockFile, owner, lockWaitMs);
  } catch (error) {
    if (!(error instanceof ForkdError) || error.code !== "deadline_exceeded") throw error;
    throw new ForkdError("busy", `another process is pulling ${name}`, {
      hint: "wait for it, or stop it; what it has brought is used by the next one",
      cause: error,
    });
  }
}

async function fetchPack(
  order: PullOrder,
  { from, sha256, sizeBytes }: Source,
  partial: PartialFile,
): Promise<Downloaded> {
  order.onNotice(`fetching ${from.name}`);
  return await download({
    from,
    partial,
    sha256,
    bytesMax: sizeBytes ?? limits.transferBytesMax,
    retry: transferRetry(order.onNotice),
    onProgress: order.onBytes,
    signal: order.signal,
  });
}

async function unpackFrom(
  { tag, force, unpack, onNotice }: PullOrder,
  partial: PartialFile,
  signal: AbortSignal,
): Promise<UnpackReport> {
  onNotice("unpacking");
  try {
    return await unpack({ from: { file: partial.file }, sha256: null, tag, force, signal });
  } catch (error) {
    // What is no pack stays none; any other refusal may be for want of --force or --tag.
    if (error instanceof ForkdError && error.code === "pack_invalid") await partial.discard();
    throw error;
  }
}
