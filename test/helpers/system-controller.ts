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
 * Starts the daemon as a unit that leaves its sandboxes running when it is stopped, and that starts
 * it again when a signal ends it, as its own unit does. `more` are `NAME=VALUE`. Resolves when it
 * listens; throws with the end of its journal, at once when it gives up by itself.
 */
export async function startController(vm: SystemVm, more: readonly string[] = []): Promise<void> {
  const env = [...installed.env, ...more].map((word) => `-E ${word}`);
  const properties = "-p KillMode=process -p Restart=on-abnormal";
  const asUnit = [`systemd-run --unit=${unit} ${properties}`, ...env].join(" ");
  const since = (await vm.ok("date +%s")).trim();
  await vm.ok(`${asUnit} /files/forkd/bin/forkd-controller serve --token-file /etc/forkd/token`);
  const journal = `journalctl --unit ${unit} --since @${since}`;
  const first = `grep -m 1 -E 'listening on|code=exited'`;
  const { stdout } = await vm.run(`${journal} --follow --no-tail | ${first}`, slow);
  assert.match(stdout, /listening on/, await vm.ok(`${journal} --no-pager | tail -50`));
}

const answerSchema = z.object({ status: z.int(), body: z.unknown() });
export type Answer = z.output<typeof answerSchema>;

/** Asks the VM's daemon: `call(vm, "GET /healthz")`. */
export async function call(vm: SystemVm, request: string, body?: object): Promise<Answer> {
  const given = body === undefined ? [] : [`'${JSON.stringify(body)}'`];
  const words = ["python3", loadProgram, "call", request, ...given];
  return answerSchema.parse(JSON.parse(await vm.ok(words.join(" "), slow)));
}
