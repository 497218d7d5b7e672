import { setTimeout as sleep } from "node:timers/promises";
import { ForkdError, limits } from "@forkd/api";
import type { Client } from "@forkd/sdk";
import { z } from "zod";
import type { JsonObject, Tool } from "./tool.ts";

/** How much of the file's end is looked at, as upstream's server does. */
const tailBytes = 4096;
/** Characters of the file's end that the result shows. */
const excerptChars = 256;
/** For one look, which is a short program in the guest. */
const lookTimeoutSecs = 5;

const inputSchema = z.object({
  sandbox_id: z.string().min(1),
  path: z
    .string()
    .regex(/^\/[^\0]*$/, "must be an absolute path in the guest")
    .max(4096)
    .describe("Absolute path of a file in the guest; it need not be there yet."),
  marker: z.string().min(1).max(tailBytes).describe("The text to wait for."),
  timeout_secs: z.number().positive().max(limits.execTimeoutMaxSecs).default(60),
  poll_interval_ms: z.number().min(10).max(60_000).default(200),
});

const outputSchema = z.object({
  found: z.boolean(),
  elapsed_ms: z.int(),
  last_excerpt: z.string(),
});

type WaitRequest = z.infer<typeof inputSchema>;

/** A tool that waits until a file in a guest has a text near its end. */
export function waitForTextTool(client: Client): Tool {
  return {
    name: "wait_for_text",
    description:
      `Wait until the last ${tailBytes} bytes of a file in a sandbox contain a text, for ` +
      "example a line that a background program writes when it is ready. found says whether it " +
      "came in time; last_excerpt is the file's end.",
    input: inputSchema,
    output: outputSchema,
    annotations: {
      readOnlyHint: true,
      destructiveHint: false,
      idempotentHint: true,
      openWorldHint: false,
    },
    run: (args, signal) => waitForText(client, inputSchema.parse(args), signal),
  };
}

async function waitForText(
  client: Client,
  request: WaitRequest,
  signal: AbortSignal,
): Promise<JsonObject> {
  const startedAt = performance.now();
  const leftMs = (): number => startedAt + request.timeout_secs * 1000 - performance.now();
  for (;;) {
    const text = await tail(client, request, signal);
    const found = text.includes(request.marker);
    if (found || leftMs() <= 0) {
      const elapsed = Math.round(performance.now() - startedAt);
      return { found, elapsed_ms: elapsed, last_excerpt: text.slice(-excerptChars) };
    }
    await sleep(Math.min(request.poll_interval_ms, Math.max(1, leftMs())), undefined, { signal });
  }
}

/** The path is one word of a command without a shell: nothing in it is run. */
async function tail(client: Client, request: WaitRequest, signal: AbortSignal): Promise<string> {
  const answer = await client.execSandbox({
    params: { id: request.sandbox_id },
    body: {
      args: ["tail", "-c", String(tailBytes), request.path],
      timeout_secs: lookTimeoutSecs,
    },
    signal,
  });
  if (answer.exit_code === 0 || !answer.timed_out) return answer.stdout;
  throw new ForkdError("deadline_exceeded", `reading ${request.path} in the guest took too long`, {
    hint: "the path may be a pipe or a device; name a regular file",
  });
}
