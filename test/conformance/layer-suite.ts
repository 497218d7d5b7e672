import assert from "node:assert/strict";
import { copyFile, open, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import type { MemoryOverlay } from "@forkd/host/engine/engine.ts";
import { childPids } from "../helpers/child-pids.ts";
import type { CaptureSubject } from "./capture-suite.ts";
import { Guest, type GuestWorld } from "./captured-guest.ts";
import { copyExtents, createSparse, type Extent, writeExtents } from "./layers.ts";

const mib = 1024 * 1024;

/** RAM of two layers, as tests: what Engine.restore maps and what it refuses. */
export function layerConformance(name: string, makeSubject: () => Promise<CaptureSubject>): void {
  describe(`memory layers of engine ${name}`, () => {
    let subject: CaptureSubject;
    let world: GuestWorld;

    before(async () => {
      subject = await makeSubject();
      world = { ...subject, vms: [] };
    });
    after(async () => {
      await Promise.all(world.vms.map((vm) => vm.stop()));
    });

    const file = (part: string): string => join(world.dir, part);
    const ramBytes = (): number => subject.frozen.machine.memoryMib * mib;
    const withOverlay = (base: string, overlay: MemoryOverlay) => {
      return { ...subject.frozen, memory: { base, overlay } };
    };

    test("a guest sees the overlay where it has extents, and the base elsewhere", async () => {
      const overlay = { file: file("half"), extents: file("half.extents") };
      const base = file("torn-base");
      const extents: Extent[] = [];
      for (let offset = 0; offset < ramBytes(); offset += 2 * mib) {
        extents.push({ offset, length: mib });
      }
      await createSparse(overlay.file, ramBytes());
      await copyExtents(subject.frozen.memory.base, overlay.file, extents);
      await writeExtents(overlay.extents, extents);
      await copyFile(subject.frozen.memory.base, base);
      await spoil(base, extents);
      const guest = await Guest.open(world, withOverlay(base, overlay));
      assert.equal(
        await guest.value("__import__('numpy').arange(1_000_000).sum()"),
        "499999500000",
      );
      await guest.value("x = bytearray(b'x' * 30_000_000)");
      assert.equal(await guest.value("x.count(b'x')"), "30000000");
      await guest.vm.stop();
    });

    test("an overlay without extents changes nothing", async () => {
      const overlay = { file: file("none"), extents: file("none.extents") };
      await createSparse(overlay.file, ramBytes());
      await writeExtents(overlay.extents, []);
      const guest = await Guest.open(world, withOverlay(subject.frozen.memory.base, overlay));
      assert.equal(await guest.value("6 * 7"), "42");
      await guest.vm.stop();
    });

    const refused: Readonly<Record<string, readonly Extent[]>> = {
      "out of order": [
        { offset: 8192, length: 4096 },
        { offset: 4096, length: 4096 },
      ],
      overlapping: [
        { offset: 4096, length: 8192 },
        { offset: 8192, length: 4096 },
      ],
      "past the end": [{ offset: 16 * 1024 * mib, length: 4096 }],
      "no whole pages": [{ offset: 4096, length: 100 }],
      empty: [{ offset: 4096, length: 0 }],
      "more than can be mapped": Array.from({ length: 20_000 }, (_, index) => {
        return { offset: index * 8192, length: 4096 };
      }),
    };
    for (const [what, extents] of Object.entries(refused)) {
      test(`extents that are ${what} are refused and leave no process`, async () => {
        const overlay = { file: file(`bad-${what}`), extents: file(`bad-${what}.extents`) };
        await createSparse(overlay.file, ramBytes());
        await writeExtents(overlay.extents, extents);
        await assertRefused(overlay);
      });
    }

    test("a table that is cut, and layers that are missing or short, are refused", async () => {
      const overlay = { file: file("short"), extents: file("short.extents") };
      await createSparse(overlay.file, ramBytes());
      await writeExtents(overlay.extents, [{ offset: 4096, length: 4096 }]);
      await assertRefused({ ...overlay, file: file("missing") });
      await assertRefused({ ...overlay, extents: file("missing") });
      await truncate(overlay.file, 4096);
      await assertRefused(overlay);
      await truncate(overlay.file, ramBytes());
      await writeFile(overlay.extents, Buffer.alloc(20));
      await assertRefused(overlay);
    });

    test("a base of another size is refused", async () => {
      const base = file("small-base");
      await createSparse(base, mib);
      const frozen = { ...subject.frozen, memory: { base, overlay: null } };
      await assert.rejects(Guest.restore(world, frozen), {
        code: "engine_failed",
        message: /size/,
      });
    });

    async function assertRefused(overlay: MemoryOverlay): Promise<void> {
      const before = childPids();
      const frozen = withOverlay(subject.frozen.memory.base, overlay);
      const named = { code: "engine_failed", message: /forkd-ram: / };
      await assert.rejects(Guest.restore(world, frozen), named);
      assert.deepEqual(childPids(), before);
    }
  });
}

/** Overwrites the extents of a file with what no guest could live on. */
async function spoil(path: string, extents: readonly Extent[]): Promise<void> {
  await using handle = await open(path, "r+");
  for (const { offset, length } of extents) {
    await handle.write(Buffer.alloc(length, 0xcc), 0, length, offset);
  }
}
