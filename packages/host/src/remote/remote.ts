import { Readable } from "node:stream";
import { ForkdError } from "@forkd/api";

/** What a remote says of an object without sending it. */
export interface RemoteFacts {
  /** Null when it does not say. */
  readonly sizeBytes: number | null;
  /**
   * Another one whenever the bytes are others: a strong entity tag (RFC 9110, 8.8.3), as it was
   * sent. Null when the remote has none, and then parts of two reads must not be put together.
   */
  readonly version: string | null;
  /** What its writer said that the bytes hash to, hex; null when it did not. */
  readonly sha256: string | null;
}

/** Where a read is to begin. */
export interface ReadFrom {
  readonly offset: number;
  /** The version that the bytes before `offset` are of; null: whatever is there. */
  readonly version: string | null;
}

export interface RemoteRead extends RemoteFacts {
  /** Where the body begins: as asked, or 0 when it is another version, or never sent in parts. */
  readonly offset: number;
  /** Fails with an error when the connection ends early or is silent for too long. */
  readonly body: Readable;
}

/** A local file that is to be written to a remote. Its bytes must not change meanwhile. */
export interface UploadFile {
  readonly path: string;
  readonly sizeBytes: number;
  /** Hex. */
  readonly sha256: string;
}

export interface WriteOptions {
  readonly signal: AbortSignal;
  /** Called with the bytes that left since the last call; less than 0 when a part is sent again. */
  readonly onBytes: (count: number) => void;
}

/**
 * One object at some address: all that pushing and pulling need of a place to keep files. What is
 * written has its name once it is whole, or not at all.
 *
 * All throw remote_not_found, remote_refused (credentials, or a request that will not do better
 * the next time), remote_unreachable (it may), and the signal's reason.
 */
export interface RemoteObject {
  /** For people: an address without the secrets that it may carry. */
  readonly name: string;
  stat(signal: AbortSignal): Promise<RemoteFacts>;
  /** Answers once the body begins. It is tried once: who reads knows how to go on. */
  read(from: ReadFrom, signal: AbortSignal): Promise<RemoteRead>;
  /** Tries again what may be tried again. Throws remote_corrupt when the file is not as it says. */
  write(file: UploadFile, options: WriteOptions): Promise<void>;
}

/** remote_corrupt of a file that is not any more what was hashed. */
export function changedWhileSent({ path }: UploadFile): ForkdError {
  return new ForkdError("remote_corrupt", `${path} changed while it was sent`, {
    hint: "send it again when nobody writes to it",
  });
}

/** What reading an object from its very end on gives. */
export function nothingMore({ offset, version }: ReadFrom): RemoteRead {
  return { offset, version, sizeBytes: offset, sha256: null, body: Readable.from([]) };
}
