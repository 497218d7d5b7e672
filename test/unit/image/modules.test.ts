import assert from "node:assert/strict";
import { test } from "node:test";
import { findSection } from "@forkd/host/kernel/elf.ts";
import { planLoadOrder, readDependencies } from "@forkd/host/kernel/modules.ts";
import fc from "fast-check";
import { writeElf, writeModule } from "../../helpers/kernel-fixture.ts";

function plan(wanted: readonly string[], graph: Readonly<Record<string, readonly string[]>>) {
  return planLoadOrder(wanted, async (name) => graph[name]);
}

test("each module comes after all that it needs, once", async () => {
  const graph = { a: ["b", "c"], b: ["d"], c: ["d", "b"], d: [] };
  assert.deepEqual(await plan(["c", "a"], graph), ["d", "b", "c", "a"]);
});

test("built-in and absent modules are left out, what needs them is not", async () => {
  const graph = { a: ["builtin", "b"], b: [] };
  assert.deepEqual(await plan(["absent", "a"], graph), ["b", "a"]);
});

test("- and _ in a name are one letter", async () => {
  assert.deepEqual(await plan(["virtio-rng"], { virtio_rng: ["rng-core"], rng_core: [] }), [
    "rng_core",
    "virtio_rng",
  ]);
});

test("a circle is an error, not a hang", async () => {
  await assert.rejects(plan(["a"], { a: ["b"], b: ["a"] }), RangeError);
});

test("any graph without a circle is loaded in order", async () => {
  const edges = fc.array(fc.tuple(fc.nat(15), fc.nat(15)), { maxLength: 60 });
  await fc.assert(
    fc.asyncProperty(edges, async (pairs) => {
      const graph: Record<string, string[]> = {};
      for (let index = 0; index < 16; index += 1) graph[`m${index}`] = [];
      // An edge goes from the larger to the smaller number, so no circle can be.
      for (const [a, b] of pairs) {
        if (a !== b) graph[`m${Math.max(a, b)}`]?.push(`m${Math.min(a, b)}`);
      }
      const order = await plan(Object.keys(graph), graph);
      assert.equal(new Set(order).size, 16);
      for (const [name, needs] of Object.entries(graph)) {
        for (const need of needs) assert.ok(order.indexOf(need) < order.indexOf(name));
      }
    }),
  );
});

test("dependencies are read from the module itself", () => {
  assert.deepEqual(readDependencies(writeModule("x", ["virtio", "virtio_ring"])), [
    "virtio",
    "virtio_ring",
  ]);
  assert.deepEqual(readDependencies(writeModule("x", [])), []);
  assert.deepEqual(readDependencies(writeElf({ ".text": "x" })), []);
});

test("sections are found by name", () => {
  const elf = writeElf({ ".one": "1", ".two": "22" });
  assert.equal(findSection(elf, ".two")?.toString(), "22");
  assert.equal(findSection(elf, ".three"), undefined);
  assert.throws(() => findSection(Buffer.from("#!/bin/sh\n"), ".one"), RangeError);
});

test("a damaged module is a RangeError or has other dependencies, never a crash", () => {
  const elf = writeModule("x", ["a", "b"]);
  fc.assert(
    fc.property(fc.nat(elf.length - 1), fc.nat(255), fc.nat(elf.length), (at, value, length) => {
      const damaged = Buffer.from(elf.subarray(0, length));
      if (at < length) damaged[at] = value;
      try {
        readDependencies(damaged);
      } catch (error) {
        assert.ok(error instanceof RangeError, String(error));
      }
    }),
    { numRuns: 2000 },
  );
});
