/**
 * `npm run load -- --minutes N --clients N`: mixed calls of many clients against a daemon with real
 * sandboxes. Fails when a call fails otherwise than with a typed 429 or 503, or when the daemon
 * holds more afterwards. The latency of /healthz is told beside its target, which a busy machine
 * misses.
 */
import { ensureBaked } from "./helpers/baked.ts";
import { makeDataDir } from "./helpers/data-dir.ts";
import { runLoad } from "./helpers/load/run.ts";
import { failUsage, readArgs } from "./runner/args.ts";

const healthTargetMs = 50;

const usage = "npm run load -- [--minutes N] [--clients N]";
const { values } = readArgs(usage, {
  options: {
    minutes: { type: "string", default: "5" },
    clients: { type: "string", default: "50" },
  },
});
const [minutes, clients] = [Number(values.minutes), Number(values.clients)];
if (!(minutes > 0) || !Number.isInteger(clients) || clients < 1) {
  failUsage(usage, "both are positive numbers, and clients are whole");
}
const baked = await ensureBaked();
await using data = await makeDataDir("load", baked);
const report = await runLoad({ baked, dataDir: data.path, clients, durationMs: minutes * 60_000 });
console.log(JSON.stringify(report, null, 2));
const p99 = report.health?.p99 ?? Number.NaN;
const verdict = p99 < healthTargetMs ? "met" : "missed";
console.log(`healthz p99: ${p99.toFixed(1)} ms, target ${healthTargetMs} ms: ${verdict}`);
// Nothing else is to run beside it, so that no guest is late.
const late = report.late === 0 ? [] : [`${report.late} pings were answered too late`];
const wrong = [...report.wrong, ...late, ...report.grown];
for (const each of wrong) console.error(`wrong: ${each}`);
process.exitCode = wrong.length === 0 ? 0 : 1;
