import assert from "node:assert/strict";
import { test } from "node:test";
import type { Requires } from "@forkd/host/pack/manifest.ts";
import { type HostFacts, objectionsTo, requiresOf } from "@forkd/host/pack/requires.ts";
import { sampleManifest } from "../../helpers/sample-manifest.ts";

const host: HostFacts = {
  arch: "x64",
  engineVersion: async (name) => (name === "qemu" ? "7.2.0" : undefined),
  hasKvm: false,
  cpuFlags: new Set(["sse4_2", "avx2"]),
  memoryMib: 2048,
};

const requires: Requires = { ...requiresOf(sampleManifest("t"), new Set()), arch: "x64" };

const cases: readonly (readonly [Partial<Requires>, RegExp, boolean])[] = [
  [{ arch: "arm64" }, /of a arm64 host, this one is x64/, false],
  [{ agent_protocol: 2 }, /speaks protocol 2, this forkd speaks 1/, false],
  [{ memory_mib: 60_000 }, /more than 3072/, false],
  [{ memory_mib: 3000 }, /more than the 2048 of this host/, true],
  [{ engine: "firecracker", engine_version: "1.16.1" }, /firecracker 1.16.1, which this/, true],
  [{ engine_version: "9.0.0" }, /qemu 9.0.0, this host has 7.2.0/, true],
  [{ accel: "kvm" }, /needs KVM/, true],
  [{ cpu_flags: ["avx2", "amx_tile"] }, /CPU has not: amx_tile$/, true],
];

test("a host that has all can run it", async () => {
  assert.deepEqual(await objectionsTo(requires, host), []);
});

for (const [change, what, isForceable] of cases) {
  test(`${JSON.stringify(change)} is objected to`, async () => {
    const objections = await objectionsTo({ ...requires, ...change }, host);
    assert.equal(objections.length, 1);
    assert.match(objections[0]?.what ?? "", what);
    assert.equal(objections[0]?.isForceable, isForceable);
  });
}

test("only a guest that sees the host's CPU needs its flags", () => {
  const kvm = sampleManifest("t");
  const flags = new Set(["b", "a"]);
  assert.deepEqual(requiresOf(kvm, flags).cpu_flags, []);
  const machine = { ...kvm.machine, accel: "kvm" as const };
  assert.deepEqual(requiresOf({ ...kvm, machine }, flags).cpu_flags, ["a", "b"]);
});
