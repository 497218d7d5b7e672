import assert from "node:assert/strict";
import { chmod, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { ForkdError } from "@forkd/api";
import { type DaemonConfig, parseCommand } from "@forkd/host/daemon/config.ts";
import { daemonOptions, renderDaemonHelp } from "@forkd/host/daemon/options.ts";
import { loadToken, tokenMatcher } from "@forkd/host/daemon/token.ts";
import { makeTmpDir } from "../../helpers/tmp.ts";

function configOf(argv: readonly string[], env: Record<string, string> = {}): DaemonConfig {
  const command = parseCommand(["serve", ...argv], env, 0);
  assert.ok(command.kind === "serve");
  return command.config;
}

const invalid = (part: string) => (error: unknown) =>
  error instanceof ForkdError && error.code === "config_invalid" && error.message.includes(part);

test("without options the daemon has upstream's defaults", () => {
  const config = configOf([]);
  assert.deepEqual(config.bind, { host: "127.0.0.1", port: 8889 });
  assert.equal(config.statePath, "/var/lib/forkd/state.json");
  assert.equal(config.auditLogPath, "/var/log/forkd/audit.log");
  assert.equal(config.prewarmScratchDir, "/dev/shm/forkd-prewarm");
  assert.deepEqual([config.branchConcurrency, config.tokenFile, config.tls], [4, null, null]);
  assert.ok(
    Object.isFrozen(config) && Object.isFrozen(config.paths) && Object.isFrozen(config.bind),
  );
});

test("a data directory moves all that has no path of its own", () => {
  const config = configOf(["--data-dir", "/data", "--snapshot-root", "/snapshots"]);
  assert.equal(config.paths.workDir, "/data/work");
  assert.equal(config.paths.snapshotsDir, "/snapshots");
  assert.equal(config.statePath, "/data/state.json");
  assert.equal(config.auditLogPath, "/data/audit.log");
});

test("a flag wins over its variable, and an empty variable is none", () => {
  const env = { FORKD_BIND: "127.0.0.1:1", FORKD_BRANCH_CONCURRENCY: "" };
  assert.equal(configOf([], env).bind.port, 1);
  assert.equal(configOf(["--bind", "[::1]:2"], env).bind.host, "::1");
  assert.equal(configOf([], env).branchConcurrency, 4);
});

for (const bind of [
  "8889",
  "127.0.0.1",
  "127.0.0.1:",
  "127.0.0.1:70000",
  "[zz]:1",
  ":1",
  "a b:1",
]) {
  test(`--bind ${bind} is refused`, () => {
    assert.throws(() => configOf(["--bind", bind]), invalid("--bind"));
  });
}

test("beyond loopback there must be a token and TLS", () => {
  const open = ["--bind", "0.0.0.0:8889"];
  const tls = ["--tls-cert", "/c", "--tls-key", "/k"];
  assert.throws(() => configOf(open), invalid("no token"));
  assert.throws(() => configOf([...open, ...tls]), invalid("no token"));
  assert.throws(() => configOf([...open, "--token-file", "/t"]), invalid("in the clear"));
  assert.equal(configOf([...open, "--token-file", "/t", ...tls]).tls?.certFile, "/c");
  const told = [...open, "--token-file", "/t", "--allow-plain-http"];
  assert.equal(configOf(told).tls, null);
});

test("wrong usage is refused", () => {
  const wrong: readonly (readonly string[])[] = [
    ["--branch-concurrency", "0"],
    ["--branch-concurrency", "many"],
    ["--tls-cert", "/c"],
    ["--tls-key", "/k"],
    ["--nope"],
    ["extra"],
  ];
  for (const argv of wrong) assert.throws(() => configOf(argv), invalid(""), argv.join(" "));
  assert.throws(() => parseCommand([], {}, 0), invalid("serve"));
  assert.deepEqual(parseCommand(["serve", "--help"], {}, 0), { kind: "help" });
  assert.deepEqual(parseCommand(["--version"], {}, 0), { kind: "version" });
});

test("help names every option and its variable", () => {
  const help = renderDaemonHelp();
  for (const [name, { env }] of Object.entries(daemonOptions)) {
    assert.ok(help.includes(`--${name}`) && help.includes(env), name);
  }
});

test("a token that protects nothing is refused", async () => {
  await using tmp = await makeTmpDir("daemon-token");
  const path = join(tmp.path, "token");
  const wrong = [
    "",
    "  \n",
    "REPLACE_ME_WITH_A_TOKEN",
    "CHANGE_ME_CHANGE_ME",
    "short",
    "x".repeat(5000),
  ];
  for (const text of [...wrong, "with a space in it, long"]) {
    await writeFile(path, text);
    await assert.rejects(loadToken(path), invalid(path), text.slice(0, 30));
  }
  await writeFile(path, "\n  0123456789abcdef \n");
  assert.equal(await loadToken(path), "0123456789abcdef");
  await chmod(path, 0o600);
  await assert.rejects(loadToken(join(tmp.path, "none")), invalid("cannot read"));
  await assert.rejects(loadToken(tmp.path), invalid("cannot read"));
});

test("a token matches itself only", () => {
  const matches = tokenMatcher("0123456789abcdef");
  assert.ok(matches("0123456789abcdef"));
  for (const wrong of ["", "0123456789abcde", "0123456789abcdef0", "é"]) assert.ok(!matches(wrong));
});
