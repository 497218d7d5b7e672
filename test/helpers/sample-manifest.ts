import { truncate, writeFile } from "node:fs/promises";
import { parseSnapshotTag } from "@forkd/api";
import type { NewManifest, SnapshotFacts } from "@forkd/host/store/manifest.ts";
import type { Reservation } from "@forkd/host/store/snapshots.ts";

const mib = 1024 * 1024;

/** A manifest that is valid in every field. */
export function sampleManifest(tag: string): NewManifest {
  return {
    format: "forkd-snapshot",
    version: 2,
    tag: parseSnapshotTag(tag),
    created_at_unix: 1_700_000_000,
    engine: { name: "qemu", version: "7.2.0", isolation: "vm-emulated" },
    machine: { accel: "tcg", cpu: "max", vcpus: 1, memory_mib: 512, nic: false },
    kernel: { vmlinuz_sha256: "a".repeat(64), initrd_sha256: "b".repeat(64) },
    rootfs: { sha256: "c".repeat(64), ref: "debian:bookworm" },
    agent: {
      protocol: 1,
      version: "1",
      runtime: "python",
      attach_token: "0".repeat(32),
      generation: 0,
    },
    parent: null,
    files: {
      vmstate: { size: 4, sha256: "d".repeat(64) },
      memory: { size: 512 * 1024 * 1024, physical_bytes: 4096, data_bytes: 4096 },
      index: { size: 88, sha256: "e".repeat(64) },
    },
    bake: { boot_ms: 1, warm_ms: 2, freeze_ms: 3, detail: "" },
    branch: null,
    scratch: null,
  };
}

/** Writes and publishes a base of 1 MiB, of which one page is not empty, under a taken tag. */
export async function publishSample(reservation: Reservation): Promise<void> {
  const staging = await reservation.stageBase();
  await writeFile(staging.vmstateFile, "1234");
  await writeFile(staging.memoryFile, Buffer.alloc(4096, 1));
  await truncate(staging.memoryFile, mib);
  await staging.publish(sampleFacts(1));
}

/** What the maker of a snapshot with that much RAM says of it. */
export function sampleFacts(memoryMib: number): SnapshotFacts {
  const { engine, machine, kernel, rootfs, agent, bake, branch, scratch } = sampleManifest("t");
  return {
    engine,
    machine: { ...machine, memory_mib: memoryMib },
    kernel,
    rootfs,
    agent,
    bake,
    branch,
    scratch,
  };
}
