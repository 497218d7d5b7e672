import { once } from "node:events";
import { rm, stat } from "node:fs/promises";
import { connect } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { ForkdError } from "@forkd/api";
import { resolveDataPaths } from "@forkd/host/config/data-paths.ts";
import { Qmp } from "@forkd/host/engine/qemu/qmp.ts";
import type { Client } from "@forkd/sdk";

/** What the VMM's own save of a stopped guest costs. */
export interface StopAndSave {
  readonly pause_ms: number;
  readonly bytes: number;
}

const saveTimeoutMs = 120_000;
const goOnAttemptsMax = 1000;
/** Bytes a second: no limit. */
const bandwidthMax = 2 ** 40;

/** The VMM says that it is done a moment before it can go on, and has no event for that. */
async function goOn(qmp: Qmp): Promise<void> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      await qmp.execute("cont");
      return;
    } catch (error) {
      if (attempt === goOnAttemptsMax) throw error;
      await sleep(1);
    }
  }
}

/**
 * The peer of a branch: stop, migrate all RAM and devices to a file, go on. By the monitor that a
 * sandbox keeps for adoption, which nobody uses while its daemon lives.
 */
export async function stopAndSave(client: Client, id: string): Promise<StopAndSave> {
  const paths = resolveDataPaths(process.env, process.getuid?.() ?? 0);
  await client.getSandbox({ params: { id } });
  const socket = connect(join(paths.workDir, id, "qmp.sock"));
  await once(socket, "connect");
  const qmp = new Qmp(socket);
  const file = join(paths.cacheDir, `bench-save-${process.pid}`);
  try {
    await qmp.execute("qmp_capabilities");
    await qmp.execute("migrate-set-capabilities", {
      capabilities: [{ capability: "events", state: true }],
    });
    await qmp.execute("migrate-set-parameters", { "max-bandwidth": bandwidthMax });
    const started = performance.now();
    await qmp.execute("stop");
    const settled = qmp.waitFor(
      ({ event, data }) =>
        event === "MIGRATION" && ["completed", "failed"].includes(String(data["status"])),
      saveTimeoutMs,
      "saving the guest",
    );
    await qmp.execute("migrate", { uri: `exec:cat > ${file}` });
    const { data } = await settled;
    if (data["status"] !== "completed") throw new ForkdError("engine_failed", "the save failed");
    await goOn(qmp);
    return { pause_ms: performance.now() - started, bytes: (await stat(file)).size };
  } finally {
    qmp.close();
    await rm(file, { force: true });
  }
}
