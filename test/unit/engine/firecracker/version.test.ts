import assert from "node:assert/strict";
import { test } from "node:test";
import {
  capabilitiesOf,
  faultsOf,
  formatVersion,
  parseVersion,
  refusalOf,
  requireDiffs,
} from "@forkd/host/engine/firecracker/version.ts";

const of = (text: string) => parseVersion(text);

test("a version is read from what the program prints and from the API's field", () => {
  const printed = "Firecracker v1.16.1\n\nSupported snapshot data format versions: v8.0.0\n";
  assert.equal(formatVersion(of(printed)), "1.16.1");
  assert.equal(formatVersion(of("1.13.0-dev-dirty")), "1.13.0");
  for (const text of ["", "Firecracker", "v1.16", "QEMU emulator"]) {
    assert.throws(() => of(text), { code: "engine_unavailable" });
  }
});

test("a release has the fields that came with it, and no later ones", () => {
  const expected: Readonly<Record<string, readonly string[]>> = {
    "1.10.1": [],
    "1.11.0": [],
    "1.12.0": ["networkOverrides"],
    "1.13.1": ["networkOverrides", "trackDirtyPages"],
    "1.15.1": ["networkOverrides", "trackDirtyPages"],
    "1.16.0": ["networkOverrides", "trackDirtyPages", "vsockOverride"],
    "2.0.0": ["networkOverrides", "trackDirtyPages", "vsockOverride"],
  };
  for (const [version, names] of Object.entries(expected)) {
    const has = Object.entries(capabilitiesOf(of(version))).filter(([, known]) => known);
    assert.deepEqual(
      has.map(([name]) => name),
      names,
      version,
    );
  }
});

test("known faults are those of the releases before their fix", () => {
  const whats = (version: string): string[] => faultsOf(of(version)).map(({ what }) => what);
  assert.deepEqual(whats("1.14.4"), ["vsock-after-restore", "diff-over-3gib"]);
  assert.deepEqual(whats("1.15.0"), ["vsock-after-restore"]);
  assert.deepEqual(whats("1.16.0"), ["vsock-after-restore"]);
  assert.deepEqual(whats("1.16.1"), []);
  assert.deepEqual(whats("1.17.0"), []);
});

test("what cannot be used is refused with the reason", () => {
  assert.match(refusalOf(of("1.9.1")) ?? "", /older than 1\.10\.0/);
  assert.match(refusalOf(of("0.25.0")) ?? "", /older/);
  assert.match(refusalOf(of("1.15.1")) ?? "", /vsock/);
  assert.equal(refusalOf(of("1.16.1")), null);
});

test("diffs of guests over 3 GiB are refused where they are wrong", () => {
  requireDiffs(of("1.14.4"), 3072);
  requireDiffs(of("1.15.0"), 8192);
  assert.throws(() => requireDiffs(of("1.14.4"), 3073), { code: "engine_unavailable" });
});
