/** The SDK as it is published, in each JavaScript runtime that this host has. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { before, describe, test } from "node:test";
import { repoRoot } from "../helpers/baked.ts";
import { missing } from "../helpers/capabilities.ts";
import { listenForTest, TestServer } from "../helpers/test-server.ts";
import { runChild } from "../runner/child.ts";

const token = "a-token-of-the-runtimes";
const deadlineMs = 120_000;

/** How each runs a program; `node` is whatever version the host has, from 20 on. */
const runtimes: Record<string, readonly string[]> = {
  node: ["node"],
  deno: ["deno", "run", "--allow-env", "--allow-net", "--allow-read", "--node-modules-dir=manual"],
  bun: ["bun", "run"],
};

async function output(argv: readonly string[], env: Record<string, string> = {}) {
  const lines: string[] = [];
  const keep = (line: string): void => void lines.push(line);
  const end = await runChild(argv, {
    cwd: repoRoot,
    env: { ...process.env, NODE_OPTIONS: undefined, ...env },
    deadlineMs,
    onStdoutLine: keep,
    onStderrLine: keep,
  });
  return { code: end.code, text: lines.join("\n") };
}

describe("the SDK's build", () => {
  before(async () => {
    const { code, text } = await output([
      join(repoRoot, "node_modules/.bin/tsc"),
      "-b",
      "packages/sdk",
    ]);
    assert.equal(code, 0, text);
  });

  for (const [name, argv] of Object.entries(runtimes)) {
    test(`in ${name}`, { skip: missing({ programs: [name] }) }, async (context) => {
      const server = new TestServer({ token });
      const port = await listenForTest(server, context);
      const program = join(repoRoot, "test/fixtures/sdk-smoke.mjs");
      const { code, text } = await output([...argv, program], {
        FORKD_URL: `http://127.0.0.1:${port}`,
        FORKD_TOKEN: token,
      });
      assert.equal(code, 0, text);
      assert.deepEqual(JSON.parse(text), [
        ...["a b\n", "x", true, 2, 0, "base"],
        ...[true, "sandbox_not_found", 404, "enough", "daemon_unreachable"],
      ]);
    });
  }

  test("imports nothing of Node's own", async () => {
    const { code, text } = await output([
      ...["grep", "-rlE", 'from "node:|require\\(', join(repoRoot, "packages/sdk/dist")],
      ...["--include=*.js"],
    ]);
    assert.deepEqual([text, code], ["", 1], "grep finds nothing");
  });
});
