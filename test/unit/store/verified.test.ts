import assert from "node:assert/strict";
import { open, readFile, rm, stat, truncate, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { parseSnapshotTag } from "@forkd/api";
import { type Chain, ChainReader } from "@forkd/host/store/chain.ts";
import { layout } from "@forkd/host/store/layout.ts";
import type { PageJobName, PageJobs } from "@forkd/host/store/page-jobs.ts";
import { PageWorkers } from "@forkd/host/store/pages.ts";
import { VerifiedLayers } from "@forkd/host/store/verified.ts";
import {
  type ChainStore,
  makeChainStore,
  mapped,
  memoryBytes,
  page,
  secondStore,
  writeBase,
  writeBranch,
} from "../../helpers/chains.ts";

const tag = parseSnapshotTag;

/** A base with data in both of its chunks, and a link of one page in the second. */
async function makePair(): Promise<ChainStore> {
  const chain = await makeChainStore();
  const base = new Map([
    [3, 1],
    [400, 2],
  ]);
  await writeBase(chain.store, "base", base);
  await writeBranch(chain.store, { from: "base", to: "link", pages: new Map([[300, 3]]) });
  return chain;
}

const fileOf = ({ paths }: ChainStore, name: string, file: string): string =>
  join(layout.snapshotDir(paths, tag(name)), file);

async function poke(path: string, position: number): Promise<void> {
  await using file = await open(path, "r+");
  const byte = Buffer.alloc(1);
  await file.read(byte, 0, 1, position);
  byte[0] = (byte[0] ?? 0) ^ 1;
  await file.write(byte, 0, 1, position);
}

interface Damage {
  readonly what: string;
  readonly snapshot: string;
  readonly file: string;
  readonly position: number;
  readonly message: RegExp;
}

const damages: readonly Damage[] = [
  {
    what: "a page of the link",
    snapshot: "link",
    file: "memory.diff",
    position: 300 * page,
    message: /memory\.diff is damaged: chunk 0x100000 /,
  },
  {
    what: "a page of the base",
    snapshot: "base",
    file: "memory.bin",
    position: 3 * page + 7,
    message: /memory\.bin is damaged: chunk 0x0 /,
  },
  {
    what: "a page of the base that nobody wrote",
    snapshot: "base",
    file: "memory.bin",
    position: 500 * page,
    message: /memory\.bin is damaged: chunk 0x100000 .*nothing was written/,
  },
  {
    what: "a hash",
    snapshot: "base",
    file: "memory.index",
    position: 100,
    message: /memory\.index is damaged/,
  },
  {
    what: "the state of a parent",
    snapshot: "base",
    file: "vmstate",
    position: 0,
    message: /vmstate is not what was written/,
  },
];

for (const { what, snapshot, file, position, message } of damages) {
  test(`refused with file, chunk and fix: a bit of ${what}`, async () => {
    await using chain = await makePair();
    await chain.store.open(tag("link"));
    await poke(fileOf(chain, snapshot, file), position);
    const hint = new RegExp(`forkd rmi --cascade ${snapshot}$`);
    const refusal = { code: "snapshot_corrupt", message, hint };
    await assert.rejects(chain.store.open(tag("link")), refusal);
    // Once found it is told by lists too, by those of other processes as well.
    for (const store of [chain.store, secondStore(chain)]) {
      const info = (await store.list()).find((each) => each.tag === "link");
      assert.equal(info?.status, "failed");
      assert.match(info?.warning ?? "", message);
      await assert.rejects(store.open(tag("link")), refusal);
    }
  });
}

test("bytes that a link does not name do not count", async () => {
  await using chain = await makePair();
  await poke(fileOf(chain, "link", "memory.diff"), 10 * page);
  await chain.store.open(tag("link"));
});

for (const file of ["memory.bin", "memory.index", "vmstate"]) {
  test(`refused: a parent whose ${file} is cut off`, async () => {
    await using chain = await makePair();
    const path = fileOf(chain, "base", file);
    await truncate(path, (await stat(path)).size - 1);
    await assert.rejects(chain.store.open(tag("link")), {
      code: "snapshot_incomplete",
      message: new RegExp(`${path} has \\d+ bytes, the manifest says \\d+`),
    });
  });
}

test("a file that was made sparse again, or was only touched, is as good", async () => {
  await using chain = await makePair();
  const path = fileOf(chain, "base", "memory.bin");
  const bytes = await readFile(path);
  await writeFile(path, bytes);
  const before = await mapped((await chain.store.open(tag("link"))).memory);
  const past = new Date(Date.now() - 60_000);
  await utimes(path, past, past);
  const again = await chain.store.open(tag("link"));
  assert.ok((await mapped(again.memory)).equals(before));
});

class CountingPages extends PageWorkers {
  readonly jobs: string[] = [];

  override run<N extends PageJobName>(
    name: N,
    input: PageJobs[N]["input"],
  ): Promise<PageJobs[N]["output"]> {
    this.jobs.push(name);
    return super.run(name, input);
  }
}

async function resolve({ paths }: ChainStore): Promise<Chain> {
  return new ChainReader(paths).resolve(tag("link"));
}

test("what was hashed when it was written is not hashed again, by no process", async () => {
  await using chain = await makePair();
  const pages = new CountingPages();
  const verified = new VerifiedLayers(layout.verifiedDir(chain.paths), pages);
  for (const link of await resolve(chain)) await verified.require(link);
  assert.deepEqual(pages.jobs, []);
});

test("what nobody remembers is hashed once, however many ask", async () => {
  await using chain = await makePair();
  const dir = layout.verifiedDir(chain.paths);
  const [base] = await resolve(chain);
  await rm(join(dir, `${base.sha256}.json`));
  const pages = new CountingPages();
  const verified = new VerifiedLayers(dir, pages);
  await Promise.all([verified.require(base), verified.require(base)]);
  await verified.require(base);
  assert.deepEqual(pages.jobs, ["verify", "hash"]);
});

test("a record that cannot be read is no record", async () => {
  await using chain = await makePair();
  const dir = layout.verifiedDir(chain.paths);
  const [base] = await resolve(chain);
  await writeFile(join(dir, `${base.sha256}.json`), "{");
  const pages = new CountingPages();
  await new VerifiedLayers(dir, pages).require(base);
  assert.deepEqual(pages.jobs, ["verify", "hash"]);
});

test("a base of version 1 is a parent as any other, and is found whole", async () => {
  await using chain = await makeChainStore();
  await writeBase(chain.store, "base", new Map([[3, 1]]));
  const dir = layout.snapshotDir(chain.paths, tag("base"));
  const manifest = JSON.parse(await readFile(join(dir, "snapshot.json"), "utf8"));
  const { parent: _, branch: __, scratch: ___, ...old } = manifest;
  const { vmstate, memory } = manifest.files;
  const files = {
    vmstate: { size: vmstate.size },
    memory: { size: memoryBytes, physical_bytes: memory.physical_bytes },
  };
  await writeFile(join(dir, "snapshot.json"), JSON.stringify({ ...old, version: 1, files }));
  await rm(join(dir, "memory.index"));
  await writeBranch(chain.store, { from: "base", to: "link", pages: new Map([[4, 2]]) });
  await chain.store.compact(tag("link"), tag("flat"));
  const flat = await chain.store.open(tag("flat"));
  assert.equal(flat.manifest.files.memory.data_bytes, 2 * page);
  assert.ok(
    (await mapped(flat.memory)).equals(await mapped((await chain.store.open(tag("link"))).memory)),
  );
});
