import assert from "node:assert/strict";
import type { SandboxInfo } from "@forkd/api";
import type { Client } from "@forkd/sdk";

/** One child of a snapshot, ready for use. */
export async function spawnOne(client: Client, tag: string): Promise<SandboxInfo> {
  const [child] = await client.createSandboxes({ body: { snapshot_tag: tag, n: 1 } });
  return child ?? assert.fail("no child");
}
