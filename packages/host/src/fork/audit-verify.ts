import { createReadStream } from "node:fs";
import { readdir, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { createGunzip, createZstdDecompress } from "node:zlib";
import { ForkdError } from "@forkd/api";
import { isErrno } from "../lib/atomic.ts";
import { type ChainHead, chainStart, hashLine, parseLink } from "./audit-chain.ts";

/** Something in an audit log that is not as it was written. */
export interface AuditFinding {
  readonly file: string;
  /** From 1 on. */
  readonly line: number;
  readonly problem: string;
}

export interface AuditVerdict {
  /** In the order of what they hold. */
  readonly files: readonly string[];
  /** Entries of the chain that were read. */
  readonly entries: number;
  /** Number of the first of them; those before have been deleted with their files. */
  readonly first: number | null;
  readonly last: ChainHead | null;
  /** Lines before the chain begins, of a version that had none. */
  readonly unchained: number;
  /** The first {@link findingsMax}; empty when all is as it was written. */
  readonly findings: readonly AuditFinding[];
}

const findingsMax = 100;

/** The log and what rotation has made of it: `audit.log.1`, `audit.log-20261122.gz` and so on. */
export async function findAuditFiles(path: string): Promise<string[]> {
  const name = basename(path);
  const names = await readdir(dirname(path)).catch((error: unknown) => {
    if (isErrno(error, "ENOENT")) return [];
    throw error;
  });
  return names
    .filter((each) => each === name || /^[.-]\d[\d.-]*(\.gz|\.zst)?$/.test(cut(each, name)))
    .map((each) => join(dirname(path), each));
}

function cut(text: string, prefix: string): string {
  return text.startsWith(prefix) ? text.slice(prefix.length) : "";
}

/**
 * Reads the files of one log, in whatever order they are given, and follows the chain. `expected`
 * are heads that are known from elsewhere: an entry that is missing or another one is found even at
 * the end. Throws not_found for a file that is missing.
 */
export async function verifyAudit(
  paths: readonly string[],
  expected: readonly ChainHead[],
): Promise<AuditVerdict> {
  const files = await inOrder(paths);
  const walk = new Walk(expected);
  for (const file of files) {
    let line = 0;
    for await (const text of linesOf(file)) {
      line += 1;
      if (text !== "") walk.take(text, { file, line });
    }
  }
  return { files, ...walk.finish(files.at(-1) ?? "") };
}

/** By the number of the first entry; a file without one is from before there were any. */
async function inOrder(paths: readonly string[]): Promise<string[]> {
  const keyed = await Promise.all(
    paths.map(async (path) => {
      await mustExist(path);
      return { path, first: await firstSeq(path) };
    }),
  );
  return keyed.sort((a, b) => a.first - b.first).map(({ path }) => path);
}

async function mustExist(path: string): Promise<void> {
  await stat(path).catch((error: unknown) => {
    const reason = error instanceof Error ? error.message : String(error);
    throw new ForkdError("bad_request", `cannot read the audit log: ${reason}`, {
      hint: "name its files: forkd audit verify FILE...",
      cause: error,
    });
  });
}

async function firstSeq(path: string): Promise<number> {
  for await (const text of linesOf(path)) {
    const link = parseLink(text);
    if (link !== undefined) return link.seq;
  }
  return 0;
}

async function* linesOf(path: string): AsyncGenerator<string> {
  const source = createReadStream(path);
  const unpack = unpacker(path);
  const input = unpack === undefined ? source : source.pipe(unpack);
  source.on("error", (error) => input.destroy(error));
  try {
    yield* createInterface({ input, crlfDelay: Number.POSITIVE_INFINITY });
  } finally {
    source.destroy();
  }
}

function unpacker(path: string) {
  if (path.endsWith(".gz")) return createGunzip();
  return path.endsWith(".zst") ? createZstdDecompress() : undefined;
}

interface Place {
  readonly file: string;
  readonly line: number;
}

/** One walk along the chain. */
class Walk {
  readonly #expected: ReadonlyMap<number, string>;
  readonly #findings: AuditFinding[] = [];
  #first: number | null = null;
  #last: (ChainHead & Place) | undefined;
  #entries = 0;
  #unchained = 0;

  constructor(expected: readonly ChainHead[]) {
    this.#expected = new Map(expected.map(({ seq, hash }) => [seq, hash]));
  }

  take(text: string, place: Place): void {
    const link = parseLink(text);
    if (link === undefined) {
      if (this.#last === undefined) this.#unchained += 1;
      else this.#find(place, "this line is no entry of the chain");
      return;
    }
    this.#entries += 1;
    this.#first ??= link.seq;
    const here = { seq: link.seq, hash: hashLine(text), ...place };
    const expected = this.#expected.get(here.seq);
    if (expected !== undefined && expected !== here.hash) {
      this.#find(place, `entry ${here.seq} is not the one that was noted elsewhere`);
    }
    if (this.#connect(link.prev, here)) this.#last = here;
  }

  finish(file: string): Omit<AuditVerdict, "files"> {
    const { seq = 0, hash = "", line = 0 } = this.#last ?? {};
    const noted = Math.max(0, ...this.#expected.keys());
    if (noted > seq) {
      this.#find({ file, line }, `entries ${seq + 1} to ${noted} are missing at the end`);
    }
    return {
      entries: this.#entries,
      first: this.#first,
      last: this.#last === undefined ? null : { seq, hash },
      unchained: this.#unchained,
      findings: this.#findings,
    };
  }

  /** Whether the chain goes on from here; an entry out of order is stepped over. */
  #connect(prev: string, here: ChainHead & Place): boolean {
    const last = this.#last;
    if (last === undefined) {
      if (here.seq === 1 && prev !== chainStart.hash)
        this.#find(here, "entry 1 follows another one");
      return true;
    }
    if (here.seq > last.seq + 1) {
      const missing = `entries ${last.seq + 1} to ${here.seq - 1}`;
      this.#find(here, `${missing} are missing before this line`);
    } else if (here.seq === last.seq + 1) {
      if (prev === last.hash) return true;
      const what = `entry ${last.seq}, or the link to it in entry ${here.seq}, was changed`;
      this.#find(last, what);
    } else if (here.seq === 1 && prev === chainStart.hash) {
      this.#find(here, `a new chain begins after entry ${last.seq}`);
    } else {
      this.#find(here, `entry ${here.seq} stands after entry ${last.seq}: moved, or put in`);
      return false;
    }
    return true;
  }

  #find({ file, line }: Place, problem: string): void {
    if (this.#findings.length < findingsMax) this.#findings.push({ file, line, problem });
  }
}
