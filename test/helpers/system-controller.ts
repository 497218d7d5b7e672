import assert from "node:assert/strict";
import { z } from "zod";
import type { SystemVm } from "./system-vm.ts";

/** For the files of a system VM: `fork-load.py` asks a daemon there. */
export const loadProgram = "/files/fork-load.py";
/** A guest of an emulated host that is emulated itself, on a machine with other work. */
export const slow = { timeoutMs: 6 * 60_000 } as const;

const dataDir = "/var/lib/forkd";
const unit = "forkd";

/** Where forkd of {@link checkoutFiles} keeps all, and with which environment it runs. */
export const installed = {
  dataDir,
  unit,
  forkd: "/files/forkd/bin/forkd",
  env: ["FORKD_NODE=/files/node", "HOME=/root"],
} as const;

/** Gives the VM's daemon its data, from /files/data, and a token. */
export async function prepareController(vm: SystemVm): Promise<void> {
  await vm.ok(`cp -a /files/data ${dataDir} && mkdir -m 700 /etc/forkd`, slow);
  await vm.ok("umask 077; head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \\n' > /etc/forkd/token");
}

/**
 * What the daemon's own unit says of its end (packaging/systemd): a stop leaves its sandboxes
 * running, and whatever ends it but a configuration that cannot work starts it again.
 */
const properties = [
  ...["KillMode=process", "Restart=on-failure", "RestartSec=2"],
  "RestartPreventExitStatus=2",
];

/**
 * Starts the daemon as a unit that ends and starts again as its own one does. `more` are
 * `NAME=VALUE`. Resolves when it listens; throws with the end of its journal, at once when it gives
 * up by itself.
 */
export async function startController(vm: SystemVm, more: readonly string[] = []): Promise<void> {
  const env = [...installed.env, ...more].map((word) => `-E ${word}`);
  const words = properties.map((property) => `-p ${property}`);
  // Collected when it has failed: the name is free for the next one.
  const asUnit = [`systemd-run --collect --unit=${unit}`, ...words, ...env].join(" ");
  const since = await now(vm);
  await vm.ok(`${asUnit} /files/forkd/bin/forkd-controller serve --token-file /etc/forkd/token`);
  await listening(vm, since);
}

/**
 * Kills the daemon's main process. Resolves when the one that the unit starts in its place listens;
 * throws as {@link startController} does.
 */
export async function killController(vm: SystemVm): Promise<void> {
  const [killed, since] = [await mainPid(vm), await now(vm)];
  await vm.ok(`systemctl kill --signal KILL --kill-whom main ${unit}`);
  await listening(vm, since);
  const restarted = await mainPid(vm);
  assert.ok(restarted > 0 && restarted !== killed, `${restarted} after ${killed}`);
}

/** 0 when nothing of the unit runs. */
async function mainPid(vm: SystemVm): Promise<number> {
  return Number(await vm.ok(`systemctl show --property MainPID --value ${unit}`));
}

/** For journalctl's `--since`, so fine that what an earlier daemon has said is not seen again. */
async function now(vm: SystemVm): Promise<string> {
  return `@${(await vm.ok("date +%s.%6N")).trim()}`;
}

/** Waits for what the unit's next process says. A process that a signal ends is started again. */
async function listening(vm: SystemVm, since: string): Promise<void> {
  const journal = `journalctl --unit ${unit} --since ${since}`;
  const first = `grep -m 1 -E 'listening on|code=exited'`;
  const { stdout } = await vm.run(`${journal} --follow --no-tail | ${first}`, slow);
  if (/listening on/.test(stdout)) return;
  const said = await vm.ok(`${journal} --no-pager | tail -50`);
  // It may be started again and again; the next one has the name.
  await vm.run(`systemctl stop ${unit}`);
  assert.fail(said);
}

const answerSchema = z.object({ status: z.int(), body: z.unknown() });
export type Answer = z.output<typeof answerSchema>;

/** Asks the VM's daemon: `call(vm, "GET /healthz")`. */
export async function call(vm: SystemVm, request: string, body?: object): Promise<Answer> {
  const given = body === undefined ? [] : [`'${JSON.stringify(body)}'`];
  const words = ["python3", loadProgram, "call", request, ...given];
  return answerSchema.parse(JSON.parse(await vm.ok(words.join(" "), slow)));
}
