import { type ExecId, parseExecId, parseSandboxId, type SandboxId } from "@forkd/api";
import { listTimeoutMs, openClient } from "../daemon.ts";
import { detachKeysDefault, parseDetachKeys } from "../detach-keys.ts";
import { usage } from "../flags.ts";
import { joinProcess } from "../guest-process.ts";
import { defineVerb } from "../verb.ts";

interface AttachOptions {
  readonly id: SandboxId;
  readonly exec: ExecId;
  readonly offset: number;
  readonly detachKeys: Uint8Array;
}

export const attachVerb = defineVerb<AttachOptions>({
  describe: (command) =>
    command
      .name("attach")
      .description("return to a command of forkd exec -i, -t or -d; exits with its code")
      .argument("<id>", "its sandbox")
      .argument("<exec>", "its id, see forkd execs")
      .option("--offset <bytes>", "show its output from here on, as far as it is kept", "0")
      .option("--detach-keys <keys>", "leave it running when these are typed", detachKeysDefault),
  parse: ({ flags, args: [id, exec, extra] }) => {
    if (id === undefined || exec === undefined) throw usage("name a sandbox and its command");
    if (extra !== undefined) throw usage(`unexpected ${JSON.stringify(extra)}`);
    return {
      id: parseSandboxId(id),
      exec: parseExecId(exec),
      offset: flags.integer("offset", { min: 0, max: Number.MAX_SAFE_INTEGER }),
      detachKeys: parseDetachKeys(flags.text("detachKeys") ?? ""),
    };
  },
  run: async ({ settings, output, signal }, { id, exec, offset, detachKeys }) => {
    const { Sandbox } = await import("@forkd/sdk");
    const client = await openClient(settings);
    const control = { timeoutMs: listTimeoutMs, signal };
    const sandbox = await Sandbox.get(id, { client, ...control });
    const guest = await sandbox.attach(exec, { offset, signal });
    const returnHint = `forkd attach ${id} ${exec}`;
    return await joinProcess(guest, { output, signal, input: true, detachKeys, returnHint });
  },
});
