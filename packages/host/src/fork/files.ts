import {
  type FileInfo,
  type FileList,
  type FileType,
  ForkdError,
  limits,
  type SandboxId,
} from "@forkd/api";
import type { FileRecord } from "../agent/file-record.ts";
import {
  type FileAction,
  type FileReading,
  type FileTarget,
  fileAction,
  type ReadOptions,
  readFile,
  type WriteOptions,
  writeFile,
} from "../agent/files.ts";
import type { AgentSession } from "../agent/session.ts";

export type { FileReading, FileTarget, ReadOptions, WriteOptions } from "../agent/files.ts";

/** Runs work on the agent session of an open sandbox. */
export type WithSession = <T>(
  id: SandboxId,
  work: (session: AgentSession) => Promise<T>,
) => Promise<T>;

/** An action of one caller on one file. `signal` gives it up; the guest's side is ended. */
export interface FileCall extends FileTarget {
  readonly id: SandboxId;
  readonly signal?: AbortSignal;
}

/**
 * The files of running guests; docs/files.md says what a path means. Every method throws
 * sandbox_not_found, sandbox_ended, agent_unavailable, and the file's own codes of the error table.
 */
export class GuestFiles {
  readonly #withSession: WithSession;

  constructor(withSession: WithSession) {
    this.#withSession = withSession;
  }

  async stat(call: FileCall, follow: boolean): Promise<FileInfo> {
    const [record] = await this.#act(call, { action: "stat", follow });
    if (record === undefined) throw new ForkdError("agent_unavailable", "the guest told nothing");
    return describe(record, lastPart(call.path));
  }

  /** By name, at most `limits.fileListEntriesMax`. */
  async list(call: FileCall): Promise<FileList> {
    const length = limits.fileListEntriesMax + 1;
    const records = await this.#act(call, { action: "list", length });
    const kept = records.slice(0, limits.fileListEntriesMax);
    kept.sort((a, b) => Buffer.compare(a.name, b.name));
    return {
      entries: kept.map((record) => describe(record, record.name)),
      truncated: records.length > kept.length,
    };
  }

  async makeDirectory(
    call: FileCall,
    options: { readonly mode?: number; readonly parents: boolean },
  ): Promise<void> {
    await this.#act(call, { action: "mkdir", ...options });
  }

  async remove(call: FileCall, recursive: boolean): Promise<void> {
    await this.#act(call, { action: "remove", recursive });
  }

  async rename(call: FileCall, to: Buffer): Promise<void> {
    await this.#act(call, { action: "rename", to_b64: to.toString("base64") });
  }

  /** What is returned must be read to its end, stopped, or given up by the call's signal. */
  async read(call: FileCall, options: ReadOptions): Promise<FileReading> {
    const { id, signal, ...target } = call;
    return await this.#withSession(id, (session) =>
      readFile(session, target, { ...options, signal }),
    );
  }

  /** Whole or not at all: an end of `bytes` by an error leaves the file as it was. */
  async write(
    call: FileCall,
    options: WriteOptions & { readonly bytes: AsyncIterable<Uint8Array> },
  ): Promise<FileInfo> {
    const { id, signal, ...target } = call;
    const record = await this.#withSession(id, (session) =>
      writeFile(session, target, { ...options, signal }),
    );
    return describe(record, lastPart(call.path));
  }

  async #act({ id, signal, ...target }: FileCall, request: FileAction): Promise<FileRecord[]> {
    return await this.#withSession(id, (session) =>
      fileAction(session, target, { request, signal }),
    );
  }
}

const slash = 0x2f;

/** `b` of `/a/b/`, and `/` of the root. */
function lastPart(path: Buffer): Buffer {
  let end = path.length;
  while (end > 1 && path[end - 1] === slash) end -= 1;
  const start = path.subarray(0, end).lastIndexOf(slash) + 1;
  return start < end ? path.subarray(start, end) : path.subarray(0, 1);
}

const typeBits = 0o170000;
const modeBits = 0o7777;
/** `S_IFMT` of Linux. */
const types: ReadonlyMap<number, FileType> = new Map([
  [0o010000, "fifo"],
  [0o020000, "char_device"],
  [0o040000, "directory"],
  [0o060000, "block_device"],
  [0o100000, "file"],
  [0o120000, "symlink"],
  [0o140000, "socket"],
]);

function describe(record: FileRecord, name: Buffer): FileInfo {
  const { mode, uid, gid, sizeBytes, modifiedMs, target } = record;
  const type = types.get(mode & typeBits);
  if (type === undefined) {
    throw new ForkdError("agent_unavailable", "the guest told of a file of no known type");
  }
  return {
    ...named("name", name),
    name: name.toString("utf8"),
    type,
    mode: (mode & modeBits).toString(8).padStart(4, "0"),
    uid,
    gid,
    size_bytes: sizeBytes,
    modified_at_unix_ms: modifiedMs,
    ...(target.length === 0 ? {} : { target: target.toString("utf8") }),
    ...named("target", target),
  };
}

/** The bytes of a text that UTF-8 cannot hold, under the name that says so. */
function named(field: "name" | "target", bytes: Buffer): { [field: string]: string } {
  const isText = Buffer.from(bytes.toString("utf8"), "utf8").equals(bytes);
  return isText ? {} : { [`${field}_b64`]: bytes.toString("base64url") };
}
