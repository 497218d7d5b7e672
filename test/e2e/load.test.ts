import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { ensureBaked } from "../helpers/baked.ts";
import { skipWithout } from "../helpers/capability.ts";
import { makeDataDir } from "../helpers/data-dir.ts";
import { runLoad } from "../helpers/load/run.ts";

const clients = 50;
const durationMs = 10_000;

/** The short form of `npm run load`. */
describe("a daemon under load", { skip: skipWithout("root", "qemu", "guest-agent") }, () => {
  test("refuses with typed errors at most, and holds no more afterwards", async (t) => {
    const baked = await ensureBaked();
    await using data = await makeDataDir("load", baked);
    const report = await runLoad({ baked, dataDir: data.path, clients, durationMs });
    const { p50 = 0, p99 = 0 } = report.health ?? {};
    const [before, after] = [report.before, report.after].map(({ residentMib }) =>
      residentMib.toFixed(0),
    );
    t.diagnostic(
      `${report.calls} calls; healthz p50 ${p50.toFixed(1)} ms, p99 ${p99.toFixed(1)} ms; ` +
        `refused ${JSON.stringify(report.refused)}; late ${report.late}; ` +
        `${before} MiB, then ${after} MiB`,
    );
    assert.ok(report.calls > clients);
    assert.ok(report.health !== null);
    assert.deepEqual([...report.wrong, ...report.grown], []);
    await data.assertNothingLeft();
  });
});
