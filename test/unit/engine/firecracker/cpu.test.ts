import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import {
  cpuOf,
  hostCpu,
  machineCpu,
  parseHostCpu,
  requireCpu,
} from "@forkd/host/engine/firecracker/cpu.ts";
import { makeTmpDir } from "../../../helpers/tmp.ts";

const cpuinfo = `processor\t: 0
vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: 106
model name\t: Intel(R) Xeon(R) Platinum
stepping\t: 6
`;

test("a host's CPU is what its saved state depends on", () => {
  assert.equal(parseHostCpu(cpuinfo), "host:GenuineIntel-6-106-6");
  assert.equal(parseHostCpu(""), "host:unknown-unknown-unknown-unknown");
  assert.match(hostCpu(), /^host:/);
});

test("without a template guests see the host's CPU, and only an equal host restores them", async () => {
  for (const choice of [null, "None"]) {
    const cpu = await cpuOf(choice);
    assert.equal(cpu, hostCpu());
    assert.deepEqual(await machineCpu(cpu), { template: null, custom: null });
    requireCpu(cpu);
  }
  const code = "snapshot_incompatible";
  assert.throws(() => requireCpu("host:OtherVendor-1-2-3"), { code, message: /OtherVendor-1-2-3/ });
});

test("a template by name is told to Firecracker, and bound to no host", async () => {
  const cpu = await cpuOf("T2S");
  assert.equal(cpu, "template:T2S");
  assert.deepEqual(await machineCpu(cpu), { template: "T2S", custom: null });
  requireCpu(cpu);
  await assert.rejects(cpuOf("T9"), { code: "config_invalid", message: /T9 is no CPU template/ });
});

test("a template of the operator's is known by its content", async () => {
  await using tmp = await makeTmpDir("cpu");
  const path = join(tmp.path, "cpu.json");
  const template = { cpuid_modifiers: [{ leaf: "0x1", subleaf: "0x0", flags: 0, modifiers: [] }] };
  await writeFile(path, JSON.stringify(template));
  const cpu = await cpuOf(path);
  assert.match(cpu, /^custom:[0-9a-f]{64}:\//);
  assert.ok(cpu.length <= 256, "it fits into a manifest");
  assert.deepEqual(await machineCpu(cpu), { template: null, custom: template });
  requireCpu(cpu);
  await writeFile(path, "{}");
  await assert.rejects(machineCpu(cpu), { code: "snapshot_incompatible", message: /has changed/ });
  await writeFile(path, '{"surprise": 1}');
  await assert.rejects(cpuOf(path), { code: "config_invalid" });
  await writeFile(path, "not JSON");
  await assert.rejects(cpuOf(path), { code: "config_invalid" });
});
