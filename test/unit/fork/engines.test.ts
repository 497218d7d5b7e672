import assert from "node:assert/strict";
import { chmod, mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { type EngineName, ForkdError } from "@forkd/api";
import { resolveDataPaths } from "@forkd/host/config/data-paths.ts";
import { engineDefaults } from "@forkd/host/config/engine-settings.ts";
import type { BootKernel, Engine } from "@forkd/host/engine/engine.ts";
import { onlyEngine, openEngines, preferEngines } from "@forkd/host/fork/engines.ts";
import { makeTmpDir } from "../../helpers/tmp.ts";

const kernel: BootKernel = { vmlinuz: "/k", initrd: "/i" };
const needs = { kernel };

/** An engine that only probes. */
function engine(name: EngineName, failure: ForkdError | null = null): Engine {
  const unused = (): never => assert.fail(`${name} is only probed`);
  return {
    name,
    scratch: name === "qemu" ? "layers" : "file",
    version: unused,
    probe: async () => {
      if (failure !== null) throw failure;
      return {
        engine: name,
        version: "1",
        accel: "kvm",
        isolation: "vm",
        reasons: [`${name} ran`],
      };
    },
    machine: unused,
    boot: unused,
    restore: unused,
    adopt: unused,
  };
}

const missing = new ForkdError("engine_unavailable", "Firecracker is not installed");

test("auto takes Firecracker where it works", async () => {
  const engines = preferEngines(
    { qemu: engine("qemu"), firecracker: engine("firecracker") },
    "auto",
  );
  assert.equal((await engines.choose(needs)).engine.name, "firecracker");
});

test("auto falls back to QEMU, and says why", async () => {
  const all = { qemu: engine("qemu"), firecracker: engine("firecracker", missing) };
  const { engine: chosen, probe } = await preferEngines(all, "auto").choose(needs);
  assert.equal(chosen.name, "qemu");
  assert.deepEqual(probe.reasons, ["qemu ran", "Firecracker is not installed"]);
});

test("a failure that is no absence is not covered up", async () => {
  const full = new ForkdError("disk_full", "no room for the trial");
  const all = { qemu: engine("qemu"), firecracker: engine("firecracker", full) };
  await assert.rejects(preferEngines(all, "auto").choose(needs), { code: "disk_full" });
});

test("an engine that was asked for is taken, or its absence told", async () => {
  const all = { qemu: engine("qemu"), firecracker: engine("firecracker", missing) };
  assert.equal((await preferEngines(all, "qemu").choose(needs)).engine.name, "qemu");
  const refused = preferEngines(all, "firecracker").choose(needs);
  await assert.rejects(refused, { code: "engine_unavailable" });
  assert.equal(preferEngines(all, "qemu").get("firecracker").name, "firecracker");
});

test("an only engine is no other", () => {
  const engines = onlyEngine(engine("qemu"));
  assert.equal(engines.get("qemu").name, "qemu");
  assert.throws(() => engines.get("firecracker"), { code: "engine_unavailable" });
});

test("Firecracker is the one that was named, else the one on PATH", async () => {
  await using tmp = await makeTmpDir("engines");
  const program = async (dir: string, version: string): Promise<string> => {
    await mkdir(join(tmp.path, dir));
    const path = join(tmp.path, dir, "firecracker");
    await writeFile(path, `#!/bin/sh\necho Firecracker v${version}\n`);
    await chmod(path, 0o755);
    return path;
  };
  const [named] = [await program("a", "1.17.0"), await program("b", "1.18.0")];
  const paths = resolveDataPaths({ FORKD_DATA_DIR: join(tmp.path, "data") }, 0);
  const settings = { ...engineDefaults, jailed: false };
  const path = `${join(tmp.path, "none")}:${join(tmp.path, "b")}`;
  const versionOf = (firecracker: string | null): Promise<string> =>
    openEngines(paths, { ...settings, firecracker }, path)
      .get("firecracker")
      .version();
  assert.equal(await versionOf(named), "1.17.0");
  assert.equal(await versionOf(null), "1.18.0");
  await assert.rejects(versionOf(join(tmp.path, "gone")), { code: "engine_unavailable" });
  const jailed = openEngines(paths, { ...engineDefaults, firecracker: named }, path);
  await assert.rejects(jailed.get("firecracker").version(), {
    code: "engine_unavailable",
    message: /jailer/,
  });
});
