import assert from "node:assert/strict";
import { test } from "node:test";
import { run } from "@forkd/host/lib/exec.ts";

test("output, input and lines of standard error arrive", async () => {
  const lines: string[] = [];
  const result = await run(["sh", "-c", "cat; echo a >&2; echo b >&2"], {
    input: "in",
    onLine: (line) => lines.push(line),
  });
  assert.equal(result.stdout, "in");
  assert.deepEqual(lines, ["a", "b"]);
});

test("a failure says how the program ended and its last words", async () => {
  await assert.rejects(run(["sh", "-c", "echo why >&2; exit 3"]), {
    code: "tool_failed",
    message: "sh exited with 3: why",
  });
});

test("a missing program is told apart", async () => {
  await assert.rejects(run(["no-such-program-here"]), { code: "tool_missing" });
});

test("a missing program comes with the package that has it", async () => {
  const env = { PATH: "/nonexistent" };
  const hints: [string, RegExp][] = [
    ["zstd", /^run: apt-get install zstd \(/],
    ["nft", /^run: apt-get install nftables \(/],
    ["/nonexistent/of-ours", /^install forkd again; /],
  ];
  for (const [program, hint] of hints) {
    await assert.rejects(run([program], { env }), { code: "tool_missing", hint });
  }
});

test("a full disk is told apart by what the program says", async () => {
  await assert.rejects(run(["sh", "-c", "echo 'x: No space left on device' >&2; exit 1"]), {
    code: "disk_full",
  });
});

test("the deadline ends the whole process group", async () => {
  const started = performance.now();
  await assert.rejects(run(["sh", "-c", "sleep 30 & sleep 30; wait"], { timeoutMs: 50 }), {
    code: "deadline_exceeded",
  });
  assert.ok(performance.now() - started < 20_000);
});

test("an abort ends it with the signal's reason", async () => {
  const abort = new AbortController();
  const running = run(["sleep", "30"], { signal: abort.signal });
  abort.abort(new Error("enough"));
  await assert.rejects(running, { message: "enough" });
});

test("more output than the bound is an error, not memory", async () => {
  await assert.rejects(run(["head", "-c", "100000", "/dev/zero"], { stdoutBytesMax: 1000 }), {
    code: "tool_failed",
  });
});
