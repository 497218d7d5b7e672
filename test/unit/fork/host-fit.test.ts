import assert from "node:assert/strict";
import { test } from "node:test";
import { ForkdError } from "@forkd/api";
import type { Engine } from "@forkd/host/engine/engine.ts";
import { type Engines, onlyEngine } from "@forkd/host/fork/engines.ts";
import { HostFit } from "@forkd/host/fork/host-fit.ts";
import { sampleManifest } from "../../helpers/sample-manifest.ts";

/** All of an engine that is asked here. */
function enginesWith(version: () => Promise<string>): Engines {
  // Nothing else of an engine is called.
  return onlyEngine({ name: "qemu", version } as Engine);
}

const manifest = sampleManifest("t");

test("what wrote a snapshot runs it", async () => {
  const fit = new HostFit(enginesWith(async () => "7.2.0"));
  assert.equal(await fit.unfit(manifest), undefined);
});

test("another version and a missing engine are told", async () => {
  const fit = new HostFit(enginesWith(async () => "9.1.0"));
  assert.equal(await fit.unfit(manifest), "it needs qemu 7.2.0, this host has 9.1.0");
  const engine = { ...manifest.engine, name: "firecracker" as const, version: "1.16.1" };
  const why = await fit.unfit({ ...manifest, engine });
  assert.equal(why, "it needs firecracker 1.16.1, which this host has not");
});

test("an engine is asked once, and again when it could not answer", async () => {
  let asked = 0;
  const fit = new HostFit(
    enginesWith(async () => {
      asked += 1;
      if (asked === 1) throw new ForkdError("engine_failed", "no answer");
      return "7.2.0";
    }),
  );
  assert.equal(await fit.unfit(manifest), undefined);
  await fit.unfit(manifest);
  await fit.unfit(manifest);
  assert.equal(asked, 2);
});
