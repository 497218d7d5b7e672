import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { ForkdError } from "@forkd/api";
import type { Engine } from "@forkd/host/engine/engine.ts";
import { EngineVersions } from "@forkd/host/fork/engine-versions.ts";
import { type Engines, onlyEngine } from "@forkd/host/fork/engines.ts";
import { HostFit } from "@forkd/host/fork/host-fit.ts";
import { sampleManifest } from "../../helpers/sample-manifest.ts";
import { makeTmpDir } from "../../helpers/tmp.ts";

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

test("another run asks again only when the program is another file", async () => {
  await using dir = await makeTmpDir("host-fit");
  const cacheDir = dir.path;
  const program = join(cacheDir, "vmm");
  let asked = 0;
  const version = async (): Promise<string> => {
    asked += 1;
    return "7.2.0";
  };
  const run = async (): Promise<void> => {
    const kept = new EngineVersions({ cacheDir, programOf: async () => program });
    assert.equal(await new HostFit(enginesWith(version), kept).unfit(manifest), undefined);
  };
  await writeFile(program, "one");
  await run();
  await run();
  assert.equal(asked, 1);
  await writeFile(program, "another");
  await run();
  assert.equal(asked, 2);
  await writeFile(join(cacheDir, "version-qemu.json"), "{");
  await run();
  assert.equal(asked, 3, "a record that cannot be read is none");
});
