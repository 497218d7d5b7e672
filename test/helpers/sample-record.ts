import type { SandboxRecord } from "@forkd/host/fork/record.ts";
import { bootId } from "@forkd/host/linux/proc.ts";
import { sampleSandbox } from "./fake-service.ts";

/** What is on disk of a running sandbox of a daemon. */
export function sampleRecord(id: string, change: Partial<SandboxRecord> = {}): SandboxRecord {
  return {
    phase: "running",
    outlives: true,
    bootId: bootId(),
    info: sampleSandbox(id, "base"),
    snapshotSha256: "0".repeat(64),
    resources: [],
    process: null,
    diskLayers: [],
    nextLayer: null,
    attachTokens: [],
    end: null,
    ...change,
  };
}
