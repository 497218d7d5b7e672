import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { describe, test } from "node:test";
import { parseSnapshotTag } from "@forkd/api";
import fc from "fast-check";
import {
  makeChainStore,
  mapped,
  memoryPages,
  modelled,
  type Pages,
  page,
  writeBase,
  writeBranch,
  writeLate,
} from "../../helpers/chains.ts";

const tag = parseSnapshotTag;

/** Runs of pages with a byte each; a page of zeros over one with data must count too. */
const pagesArb: fc.Arbitrary<Pages> = fc
  .array(
    fc.record({
      from: fc.nat(memoryPages - 1),
      count: fc.integer({ min: 1, max: 40 }),
      byte: fc.nat(255),
    }),
    { maxLength: 12 },
  )
  .map((runs) => {
    const pages = new Map<number, number>();
    for (const { from, count, byte } of runs) {
      for (let n = from; n < Math.min(from + count, memoryPages); n += 1) pages.set(n, byte);
    }
    return pages;
  });

test("any chain gives at every depth what was written, mapped, compacted and branched flat", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(pagesArb, { minLength: 1, maxLength: 5 }),
      fc.integer({ min: 1, max: 6 }),
      async (layers, runsMax) => {
        await using chain = await makeChainStore({ overlays: { runsWanted: 1, runsMax } });
        const { store } = chain;
        const [base = new Map(), ...links] = layers;
        await writeBase(store, "s0", base);
        for (const [i, pages] of links.entries()) {
          await writeBranch(store, { from: `s${i}`, to: `s${i + 1}`, pages });
        }
        for (const depth of layers.keys()) {
          const model = modelled(layers.slice(0, depth + 1));
          const snapshot = await store.open(tag(`s${depth}`));
          assert.ok((await mapped(snapshot.memory)).equals(model), `depth ${depth}`);
          if (snapshot.memory.overlay === null) continue;
          const table = await readFile(snapshot.memory.overlay.extents);
          assert.ok(table.length / 16 <= runsMax);
        }
        const last = layers.length - 1;
        await store.compact(tag(`s${last}`), tag("compacted"));
        const compacted = await store.open(tag("compacted"));
        assert.equal(compacted.chain.length, 1);
        assert.ok((await mapped(compacted.memory)).equals(modelled(layers)));
        await writeBranch(store, { from: `s${last}`, to: "flat", pages: base, flat: true });
        const flat = await store.open(tag("flat"));
        assert.ok((await mapped(flat.memory)).equals(modelled([...layers, base])));
      },
    ),
    { numRuns: 20 },
  );
});

describe("a chain of three", () => {
  const zero = new Map([
    [0, 1],
    [9, 2],
  ]);
  const one = new Map([[9, 3]]);
  const two = new Map([[300, 4]]);

  async function makeThree() {
    const chain = await makeChainStore();
    await writeBase(chain.store, "a", zero);
    await writeBranch(chain.store, { from: "a", to: "b", pages: one });
    await writeBranch(chain.store, { from: "b", to: "c", pages: two });
    return chain;
  }

  test("a link takes the changed pages only, and says so", async () => {
    await using chain = await makeThree();
    const info = await chain.store.info(tag("c"));
    assert.equal(info.chain_depth, 2);
    assert.equal(info.parent_tag, "b");
    assert.deepEqual(info.ancestors, ["a", "b"]);
    assert.equal(info.memory_data_bytes, page);
    assert.ok(info.memory_physical_bytes <= page);
    assert.deepEqual((await chain.store.info(tag("a"))).dependents, ["b"]);
  });

  test("one link is mapped as it is, without a copy", async () => {
    await using chain = await makeThree();
    const { memory, dir } = await chain.store.open(tag("b"));
    assert.equal(memory.overlay?.file, `${dir}/memory.diff`);
  });

  test("a parent is not removed alone; the refusal names its children and both ways out", async () => {
    await using chain = await makeThree();
    const refusal = { code: "snapshot_in_use", message: /children: b.*cascade=true.*force=true/ };
    await assert.rejects(chain.store.remove(tag("a")), refusal);
    await assert.rejects(chain.store.reserve(tag("a"), { replace: true }), refusal);
    assert.equal((await chain.store.list()).length, 3);
  });

  test("cascade removes all that came from it", async () => {
    await using chain = await makeThree();
    await chain.store.remove(tag("b"), "cascade");
    assert.deepEqual(
      (await chain.store.list()).map((info) => info.tag),
      ["a"],
    );
  });

  test("cascade removes nothing while one of them is being written", async () => {
    await using chain = await makeThree();
    const { store } = chain;
    const writing = await store.reserve(tag("d"), { replace: false });
    await writing.stageLink(await store.open(tag("c")));
    await assert.rejects(store.remove(tag("c")), { code: "snapshot_in_use", message: /: d;/ });
    await assert.rejects(store.remove(tag("a"), "cascade"), { code: "snapshot_not_ready" });
    await writing.release();
    assert.equal((await store.list()).length, 3);
  });

  test("an orphan is listed as failed with the reason, and is not spawned", async () => {
    await using chain = await makeThree();
    await chain.store.remove(tag("b"), "orphan");
    const message = "snapshot 'c' needs its parent 'b', which is missing";
    await assert.rejects(chain.store.open(tag("c")), { code: "snapshot_incomplete", message });
    const infos = await chain.store.list();
    assert.deepEqual(
      infos.map(({ tag, status, warning }) => ({ tag, status, warning })),
      [
        { tag: "a", status: "ready", warning: undefined },
        { tag: "c", status: "failed", warning: message },
      ],
    );
  });

  test("another snapshot under the parent's name is not the parent", async () => {
    await using chain = await makeThree();
    await chain.store.remove(tag("b"), "orphan");
    await writeBase(chain.store, "b", zero);
    await assert.rejects(chain.store.open(tag("c")), {
      code: "snapshot_incomplete",
      message: /made from another 'b'/,
    });
    // So it has no children, and goes without a word about them.
    await chain.store.remove(tag("b"));
  });

  test("a parent that goes while its branch is written fails the branch", async () => {
    await using chain = await makeThree();
    const { store } = chain;
    const parent = await store.open(tag("c"));
    await store.remove(tag("c"));
    await assert.rejects(writeLate(store, parent), {
      code: "snapshot_incomplete",
      message: /the parent 'c' was removed/,
    });
    assert.equal((await store.list()).length, 2);
  });
});
