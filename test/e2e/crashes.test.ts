import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { journalSteps } from "@forkd/host/fork/steps.ts";
import { ensureBaked } from "../helpers/baked.ts";
import { skipWithout } from "../helpers/capability.ts";
import { Campaign } from "../helpers/crash/campaign.ts";
import { Stage } from "../helpers/crash/stage.ts";
import { makeTmpDir, type TmpDir } from "../helpers/tmp.ts";

const killsMin = 200;

describe("kill -9 at any instant", { skip: skipWithout("root", "qemu", "guest-agent") }, () => {
  let dir: TmpDir;
  let stage: Stage;
  let campaign: Campaign;

  before(async () => {
    dir = await makeTmpDir("crash");
    stage = await Stage.open(await ensureBaked(), dir.path);
    campaign = new Campaign(stage);
  });
  after(async () => {
    await stage?.close();
    await dir?.[Symbol.asyncDispose]();
  });

  test("loses no sandbox, leaves no ghost, leak or half snapshot", async () => {
    await campaign.round({ bakes: true });
    while (campaign.total < killsMin) await campaign.round({ bakes: false });
    await campaign.finish();
    console.log(`note: ${campaign.report()}`);
    const missed = journalSteps.filter((step) => !campaign.kills.has(step));
    assert.deepEqual(missed, []);
  });
});
