/**
 * `npm run soak -- --minutes N`: the crash campaign of test/e2e/crashes.test.ts for as long as one
 * likes, bakes in every round. It ends at the first thing that is wrong, with its data kept.
 */
import { ensureBaked } from "./helpers/baked.ts";
import { Campaign } from "./helpers/crash/campaign.ts";
import { Stage } from "./helpers/crash/stage.ts";
import { makeTmpDir } from "./helpers/tmp.ts";
import { failUsage, readArgs } from "./runner/args.ts";

const usage = "npm run soak -- [--minutes N]";
const { values } = readArgs(usage, { options: { minutes: { type: "string", default: "30" } } });
const minutes = Number(values.minutes);
if (!(minutes > 0)) failUsage(usage, "minutes are a positive number");
const dir = await makeTmpDir("soak");
const stage = await Stage.open(await ensureBaked(), dir.path);
const campaign = new Campaign(stage);
const until = performance.now() + minutes * 60_000;
try {
  while (performance.now() < until) {
    await campaign.round({ bakes: true });
    console.log(campaign.report());
  }
  await campaign.finish();
} catch (error) {
  console.error(campaign.report());
  console.error(error);
  console.error(`the data directory is kept: ${dir.path}`);
  process.exitCode = 1;
}
await stage.close();
if (process.exitCode === undefined) await dir[Symbol.asyncDispose]();
