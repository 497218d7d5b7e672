import { parseSnapshotTag } from "@forkd/api";
import type { Manifest } from "@forkd/host/store/manifest.ts";

/** A manifest that is valid in every field. */
export function sampleManifest(tag: string): Manifest {
  return {
    format: "forkd-snapshot",
    version: 1,
    tag: parseSnapshotTag(tag),
    created_at_unix: 1_700_000_000,
    engine: { name: "qemu", version: "7.2.0", isolation: "vm-emulated" },
    machine: { accel: "tcg", cpu: "max", vcpus: 1, memory_mib: 512 },
    kernel: { vmlinuz_sha256: "a".repeat(64), initrd_sha256: "b".repeat(64) },
    rootfs: { sha256: "c".repeat(64), ref: "debian:bookworm" },
    agent: {
      protocol: 1,
      version: "1",
      runtime: "python",
      attach_token: "0".repeat(32),
      generation: 0,
    },
    files: { vmstate: { size: 4 }, memory: { size: 4096, physical_bytes: 4096 } },
    bake: { boot_ms: 1, warm_ms: 2, freeze_ms: 3, detail: "" },
  };
}
