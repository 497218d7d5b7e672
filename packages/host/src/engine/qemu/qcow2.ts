import { open } from "node:fs/promises";
import { ForkdError } from "@forkd/api";

/** QEMU's docs/interop/qcow2.txt, version 3. All numbers are big-endian. */
const magic = 0x514649fb;
const version = 3;
const headerBytes = 104;
const clusterBits = 16;
const clusterBytes = 2 ** clusterBits;
/** log2 of the bits of one reference count. */
const refcountOrder = 4;
const l1EntryBytes = 8;
/** What one entry of the first-level table covers: one cluster of eight-byte entries. */
const l1EntryCovers = (clusterBytes / 8) * clusterBytes;

/** The header is in the first cluster; these are the others of an empty image. */
const refcountTableAt = clusterBytes;
const refcountBlockAt = 2 * clusterBytes;
const l1TableAt = 3 * clusterBytes;
const clustersUsed = 4;

/** Sparse in whole 4 TiB, far above any disk of ours: the first-level table is one cluster. */
const bytesMax = (clusterBytes / l1EntryBytes) * l1EntryCovers;

/**
 * Makes a qcow2 image of `bytes` that holds nothing. It names no other image: what lies below it is
 * said on the command line, so that no bytes of a guest's disk can make QEMU open a file. Takes
 * 12 KiB of disk. Throws EEXIST when there is a file already.
 */
export async function createQcow2(path: string, bytes: number): Promise<void> {
  if (bytes <= 0 || bytes > bytesMax || bytes % 512 !== 0) {
    throw new ForkdError("internal", `no disk can have ${bytes} bytes`);
  }
  await using handle = await open(path, "wx", 0o600);
  await handle.write(header(bytes), 0, undefined, 0);
  await handle.write(refcountTable(), 0, undefined, refcountTableAt);
  await handle.write(refcountBlock(), 0, undefined, refcountBlockAt);
  await handle.truncate(clustersUsed * clusterBytes);
}

function header(bytes: number): Buffer {
  // Behind the header comes the end of its extensions: eight zeros.
  const buffer = Buffer.alloc(headerBytes + 8);
  buffer.writeUInt32BE(magic, 0);
  buffer.writeUInt32BE(version, 4);
  buffer.writeUInt32BE(clusterBits, 20);
  buffer.writeBigUInt64BE(BigInt(bytes), 24);
  buffer.writeUInt32BE(Math.ceil(bytes / l1EntryCovers), 36);
  buffer.writeBigUInt64BE(BigInt(l1TableAt), 40);
  buffer.writeBigUInt64BE(BigInt(refcountTableAt), 48);
  buffer.writeUInt32BE(1, 56);
  buffer.writeUInt32BE(refcountOrder, 96);
  buffer.writeUInt32BE(headerBytes, 100);
  return buffer;
}

/** One block of reference counts. */
function refcountTable(): Buffer {
  const buffer = Buffer.alloc(8);
  buffer.writeBigUInt64BE(BigInt(refcountBlockAt));
  return buffer;
}

/** One reference to each cluster in use. */
function refcountBlock(): Buffer {
  const buffer = Buffer.alloc(2 * clustersUsed);
  for (let cluster = 0; cluster < clustersUsed; cluster += 1) buffer.writeUInt16BE(1, 2 * cluster);
  return buffer;
}
