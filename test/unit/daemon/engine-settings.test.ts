import assert from "node:assert/strict";
import { test } from "node:test";
import { engineDefaults, resolveEngineSettings } from "@forkd/host/config/engine-settings.ts";
import { parseCommand } from "@forkd/host/daemon/config.ts";

const engines = (argv: readonly string[], env: Record<string, string> = {}) => {
  const command = parseCommand(["serve", ...argv], env, 0);
  return command.kind === "serve" ? command.config.engines : assert.fail();
};

test("without a word the best engine that works is taken, and Firecracker is jailed", () => {
  assert.deepEqual(resolveEngineSettings({}), engineDefaults);
  assert.deepEqual(resolveEngineSettings({ FORKD_ENGINE: "", FORKD_FIRECRACKER: "" }), {
    choice: "auto",
    firecracker: null,
    jailed: true,
    cpuTemplate: null,
    kvmTrialMs: 8_000,
  });
});

test("flags win over variables", () => {
  const env = { FORKD_ENGINE: "qemu", FORKD_CPU_TEMPLATE: "T2", FORKD_FIRECRACKER: "/b/fc" };
  assert.deepEqual(engines(["--engine", "firecracker", "--firecracker", "/a/fc"], env), {
    choice: "firecracker",
    firecracker: "/a/fc",
    jailed: true,
    cpuTemplate: "T2",
    kvmTrialMs: 8_000,
  });
});

test("a KVM that is slow is given the time that the operator says", () => {
  assert.equal(engines([], { FORKD_KVM_TRIAL_SECS: "90" }).kvmTrialMs, 90_000);
  assert.equal(engines(["--kvm-trial-secs", "600"]).kvmTrialMs, 600_000);
});

test("only an explicit word takes the jail away", () => {
  assert.equal(engines(["--firecracker-unjailed"]).jailed, false);
  assert.equal(engines([], { FORKD_FIRECRACKER_UNJAILED: "1" }).jailed, false);
  assert.equal(engines([], { FORKD_FIRECRACKER_UNJAILED: "0" }).jailed, true);
});

test("what is not known is refused with the variable's name", () => {
  const refused = (env: Record<string, string>, message: RegExp): void => {
    assert.throws(() => resolveEngineSettings(env), { code: "config_invalid", message });
  };
  refused({ FORKD_ENGINE: "xen" }, /FORKD_ENGINE="xen"/);
  refused({ FORKD_FIRECRACKER: "bin/fc" }, /FORKD_FIRECRACKER/);
  for (const secs of ["0", "601", "1.5", "-1", "8s", "1e1"]) {
    refused({ FORKD_KVM_TRIAL_SECS: secs }, /FORKD_KVM_TRIAL_SECS/);
  }
  refused({ FORKD_FIRECRACKER_UNJAILED: "maybe" }, /FORKD_FIRECRACKER_UNJAILED/);
});
