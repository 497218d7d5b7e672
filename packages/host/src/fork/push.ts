import { stat } from "node:fs/promises";
import { join } from "node:path";
import { ForkdError, limits, type SnapshotTag } from "@forkd/api";
import type { DataPaths } from "../config/data-paths.ts";
import { withStaging } from "../image/staging.ts";
import { isErrno } from "../lib/atomic.ts";
import { sha256File } from "../lib/hash.ts";
import type { PackOrder } from "../pack/orders.ts";
import { openRemote, type RemoteAddress } from "../remote/address.ts";
import type { RemoteFacts, RemoteObject, UploadFile } from "../remote/remote.ts";
import { layout } from "../store/layout.ts";
import { type TransferOptions, transferRetry, withTransferDeadline } from "./transfer.ts";

/** What is sent: a file as it is, or a snapshot that is packed for it. */
export type PushSource =
  | { readonly file: string }
  | Pick<PackOrder, "tag" | "description" | "baseImage" | "images">;

export interface PushOrder extends TransferOptions {
  readonly paths: DataPaths;
  readonly source: PushSource;
  readonly to: RemoteAddress;
  /** Whether another file of that name is replaced, where the remote tells of it. */
  readonly force: boolean;
  /** Packs a snapshot; called once, for a source that is none yet. */
  readonly pack: (order: PackOrder) => Promise<unknown>;
}

export interface PushReport {
  readonly to: string;
  readonly tag: SnapshotTag | null;
  readonly size_bytes: number;
  readonly sha256: string;
  /** False when the very file was there already. */
  readonly sent: boolean;
  /** Whether the remote could be asked afterwards what it has; a presigned address cannot. */
  readonly confirmed: boolean;
}

/**
 * Sends a pack to a remote, where it is there whole or not at all. Throws bad_request for what is
 * no file, remote_exists, and what packing and remotes throw.
 */
export function push(order: PushOrder): Promise<PushReport> {
  return withTransferDeadline(order.signal, async (signal) => {
    const retry = transferRetry(order.onNotice);
    const { source, paths } = order;
    const to = await openRemote(order.to, {
      retry,
      env: order.env,
      // A snapshot is packed into other bytes each time: no other run could go on with its parts.
      ...("file" in source && { uploadsDir: layout.uploadsDir(paths) }),
    });
    if ("file" in source) return await sendFile({ ...order, signal }, to, source.file);
    return await withStaging(layout.pushesDir(paths), signal, async (dir, both) => {
      const file = join(dir, "pack");
      order.onNotice(`packing ${source.tag}`);
      const form = { to: { file, replace: false }, format: "forkd" } as const;
      await order.pack({ ...source, ...form, signal: both });
      const report = await sendFile({ ...order, signal: both }, to, file);
      return { ...report, tag: source.tag };
    });
  });
}

async function sendFile(order: PushOrder, to: RemoteObject, path: string): Promise<PushReport> {
  const { signal, onBytes, onNotice, force } = order;
  const file = await measured(path);
  const there = order.to.kind === "s3" ? await factsIfAny(to, signal) : undefined;
  const report = { to: to.name, tag: null, size_bytes: file.sizeBytes, sha256: file.sha256 };
  if (there !== undefined && isSame(there, file))
    return { ...report, sent: false, confirmed: true };
  if (there !== undefined && !force) {
    throw new ForkdError("remote_exists", `${to.name} is there already, and is another file`);
  }
  onNotice(`sending ${file.sizeBytes} bytes to ${to.name}`);
  let sentBytes = 0;
  const count = (bytes: number): void => {
    sentBytes += bytes;
    onBytes(sentBytes, file.sizeBytes);
  };
  await to.write(file, { signal, onBytes: count });
  return { ...report, sent: true, confirmed: await confirm(to, file, signal) };
}

async function measured(path: string): Promise<UploadFile> {
  const stats = await stat(path).catch((error: unknown) => {
    if (isErrno(error, "ENOENT")) return undefined;
    throw error;
  });
  const sizeBytes = stats?.isFile() ? stats.size : 0;
  if (sizeBytes === 0 || sizeBytes > limits.transferBytesMax) {
    const message = `${path} is no file of 1 to ${limits.transferBytesMax} bytes`;
    throw new ForkdError("bad_request", message, { hint: "make one with: forkd pack --tag TAG" });
  }
  return { path, sizeBytes, sha256: await sha256File(path) };
}

function isSame(facts: RemoteFacts, { sizeBytes, sha256 }: UploadFile): boolean {
  return facts.sizeBytes === sizeBytes && facts.sha256 === sha256;
}

async function factsIfAny(to: RemoteObject, signal: AbortSignal): Promise<RemoteFacts | undefined> {
  try {
    return await to.stat(signal);
  } catch (error) {
    if (error instanceof ForkdError && error.code === "remote_not_found") return undefined;
    throw error;
  }
}

/** It was accepted: nobody should wait long for a second word. */
const confirmMaxMs = 30_000;

/** Throws remote_corrupt when the remote tells of another file than the one that was sent. */
async function confirm(to: RemoteObject, file: UploadFile, signal: AbortSignal): Promise<boolean> {
  const limited = AbortSignal.any([signal, AbortSignal.timeout(confirmMaxMs)]);
  const facts = await to.stat(limited).catch(() => {
    // An address that is signed for writing only; what was sent was accepted all the same.
    signal.throwIfAborted();
    return undefined;
  });
  if (facts === undefined || facts.sizeBytes === null) return false;
  const isRight =
    facts.sizeBytes === file.sizeBytes && (facts.sha256 ?? file.sha256) === file.sha256;
  if (isRight) return true;
  const message = `${to.name} has ${facts.sizeBytes} bytes after ${file.sizeBytes} were sent`;
  throw new ForkdError("remote_corrupt", message, {
    hint: "somebody else writes there; send it again",
  });
}
