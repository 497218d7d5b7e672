import { parseSandboxId, type SandboxId, type SandboxInfo } from "@forkd/api";
import { listTimeoutMs, openClient } from "../daemon.ts";
import { exitCodes } from "../exit.ts";
import { usage } from "../flags.ts";
import { defineVerb } from "../verb.ts";

const none = "-";

/** `a.b  value`, one line a leaf, in the order of the API. */
export function renderFacts(value: unknown, path = ""): [string, string][] {
  if (Array.isArray(value) && value.length === 0) return [[path, none]];
  if (typeof value !== "object" || value === null) return [[path, oneLine(value)]];
  return Object.entries(value).flatMap(([name, part]) =>
    renderFacts(part, path === "" ? name : `${path}.${name}`),
  );
}

function oneLine(value: unknown): string {
  return value === null || value === "" ? none : String(value).replaceAll("\n", " ");
}

function withTimes(info: SandboxInfo): object {
  const end = info.end && { ...info.end, at: new Date(info.end.at_unix_ms).toISOString() };
  const created = new Date(info.created_at_unix * 1000).toISOString();
  return { ...info, created_at: created, end };
}

export const inspectVerb = defineVerb({
  describe: (command) =>
    command
      .name("inspect")
      .description("print everything about one sandbox, also about one that has ended")
      .argument("[id]", "the sandbox's id"),
  parse: ({ args }): { readonly id: SandboxId } => {
    const [id] = args;
    if (id === undefined || args.length > 1) {
      throw usage("name one sandbox", "list them with: forkd ls --ended");
    }
    return { id: parseSandboxId(id) };
  },
  run: async ({ settings, output, signal }, { id }) => {
    const client = await openClient(settings);
    const query = { ended: true };
    const info = await client.getSandbox({
      params: { id },
      query,
      timeoutMs: listTimeoutMs,
      signal,
    });
    if (output.json) output.data(info);
    else {
      const facts = renderFacts(withTimes(info));
      const width = Math.max(...facts.map(([name]) => name.length));
      for (const [name, text] of facts) output.line(`${name.padEnd(width)}  ${text}`);
    }
    return exitCodes.ok;
  },
});
