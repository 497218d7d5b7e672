import { ForkdError, limits } from "@forkd/api";

/** One file as a guest describes it: the record of docs/guest-protocol.md. A guest is hostile. */
export interface FileRecord {
  /** `st_mode`: type and permissions. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** False for files of the kernel, whose size says nothing. */
  readonly isSizeExact: boolean;
  readonly sizeBytes: number;
  readonly modifiedMs: number;
  /** Empty when the request named it. */
  readonly name: Buffer;
  /** Of a link. */
  readonly target: Buffer;
}

const headerBytes = 36;
const sizeExactFlag = 1;
/** More than one record, however it is cut. */
const waitingBytesMax = headerBytes + 2 * limits.filePathBytesMax;

/** Cuts a stream of records apart. It holds at most one record that is not complete. */
export class RecordParser {
  #rest: Buffer = Buffer.alloc(0);

  /**
   * The next record of what was pushed so far; undefined until it is complete. Throws
   * agent_unavailable for what no agent sends.
   */
  take(): FileRecord | undefined {
    const bytes = this.#rest;
    if (bytes.length < headerBytes) return undefined;
    const nameBytes = bytes.readUInt16LE(32);
    const targetBytes = bytes.readUInt16LE(34);
    if (nameBytes > limits.filePathBytesMax || targetBytes > limits.filePathBytesMax) {
      throw new ForkdError("agent_unavailable", "the guest sent a name that is too long");
    }
    const nameEnd = headerBytes + nameBytes;
    const end = nameEnd + targetBytes;
    if (bytes.length < end) return undefined;
    this.#rest = bytes.subarray(end);
    return {
      ...facts(bytes),
      name: Buffer.from(bytes.subarray(headerBytes, nameEnd)),
      target: Buffer.from(bytes.subarray(nameEnd, end)),
    };
  }

  /** Copies the chunk. Throws agent_unavailable when nobody took what came before. */
  push(chunk: Buffer): void {
    if (this.#rest.length > waitingBytesMax) {
      throw new ForkdError("agent_unavailable", "the guest sent more than it was asked for");
    }
    this.#rest = Buffer.concat([this.#rest, chunk]);
  }

  /** What follows the records that were taken; nothing of it is kept. */
  drain(): Buffer {
    const rest = this.#rest;
    this.#rest = Buffer.alloc(0);
    return rest;
  }
}

function facts(bytes: Buffer): Omit<FileRecord, "name" | "target"> {
  return {
    mode: bytes.readUInt32LE(0),
    uid: bytes.readUInt32LE(4),
    gid: bytes.readUInt32LE(8),
    isSizeExact: (bytes.readUInt32LE(12) & sizeExactFlag) !== 0,
    sizeBytes: safeNumber(bytes.readBigUInt64LE(16)),
    modifiedMs: Number(bytes.readBigInt64LE(24)) / 1e6,
  };
}

/** Exact up to 2^53 - 1, which no file reaches. */
function safeNumber(value: bigint): number {
  return Number(value > BigInt(Number.MAX_SAFE_INTEGER) ? Number.MAX_SAFE_INTEGER : value);
}
