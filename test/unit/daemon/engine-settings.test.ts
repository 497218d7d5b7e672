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
  });
});

test("flags win over variables", () => {
  const env = { FORKD_ENGINE: "qemu", FORKD_CPU_TEMPLATE: "T2", FORKD_FIRECRACKER: "/b/fc" };
  assert.deepEqual(engines(["--engine", "firecracker", "--firecracker", "/a/fc"], env), {
    choice: "firecracker",
    firecracker: "/a/fc",
    jailed: true,
    cpuTemplate: "T2",
  });
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
  refused({ FORKD_FIRECRACKER_UNJAILED: "maybe" }, /FORKD_FIRECRACKER_UNJAILED/);
});
