/** The SDK as it is published, in Node, Deno and Bun. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { before, describe, test } from "node:test";
import { repoRoot } from "../helpers/baked.ts";
import { missing } from "../helpers/capabilities.ts";
import { type NpmProgram, npmProgram } from "../helpers/npm-programs.ts";
import { listenForTest, TestServer } from "../helpers/test-server.ts";
import { runChild } from "../runner/child.ts";

const token = "a-token-of-the-runtimes";
const deadlineMs = 120_000;

interface Runtime {
  /** Null for the host's own, of whatever version it has. */
  readonly from: NpmProgram | null;
  /** How it is told to run a program. */
  readonly words: readonly string[];
}

const runtimes: Record<string, Runtime> = {
  node: { from: null, words: [] },
  deno: {
    from: { spec: "@deno/linux-x64-glibc@2.9.6", path: "deno" },
    words: ["run", "--allow-env", "--allow-net", "--allow-read", "--node-modules-dir=manual"],
  },
  bun: {
    // For processors without AVX2 too.
    from: { spec: "@oven/bun-linux-x64-baseline@1.4.5", path: "bin/bun" },
    words: ["run"],
  },
};

async function programOf(name: string, from: NpmProgram | null) {
  if (from !== null) return await npmProgram(from);
  const skip = missing({ programs: [name] });
  return skip === false ? { program: name } : { skip };
}

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

  for (const [name, { from, words }] of Object.entries(runtimes)) {
    test(`in ${name}`, async (context) => {
      const found = await programOf(name, from);
      if ("skip" in found) return context.skip(found.skip);
      const server = new TestServer({ token });
      const port = await listenForTest(server, context);
      const program = join(repoRoot, "test/fixtures/sdk-smoke.mjs");
      const { code, text } = await output([found.program, ...words, program], {
        FORKD_URL: `http://127.0.0.1:${port}`,
        FORKD_TOKEN: token,
      });
      assert.equal(code, 0, text);
      assert.deepEqual(JSON.parse(text), [
        ...["a b\n", "x", true, 2, 0, "base"],
        ...["stdout printed\n", "x", "exec_failed"],
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
