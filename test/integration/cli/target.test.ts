import assert from "node:assert/strict";
import { test } from "node:test";
import { answerWith, openFakeAgent } from "./fake-agent.ts";
import { forkd } from "./forkd.ts";

/** exec, eval and ping with --target, against an agent that we play. */

test("exec prints what the command printed and exits with its code", async () => {
  await using agent = await openFakeAgent(
    answerWith({ stdout: "out\n", stderr: "err\n", exit_code: 7 }),
  );
  const args = ["exec", "--target", agent.target, "--timeout-secs", "5", "--", "sh", "-c", "x"];
  assert.deepEqual(await forkd(args), { code: 7, out: "out", err: "err" });
  assert.deepEqual(agent.requests, [{ action: "exec", args: ["sh", "-c", "x"], timeout: 5 }]);
});

const ends: readonly (readonly [object, number, RegExp])[] = [
  [{ stdout: "", stderr: "", exit_code: -15 }, 143, /^$/],
  [{ stdout: "", stderr: "", exit_code: -9, timed_out: true }, 124, /was killed after 30 s/],
  [{ error: "FileNotFoundError: x", traceback: "...", exit_code: 1 }, 1, /FileNotFoundError/],
];

for (const [answer, code, err] of ends) {
  test(`exec exits with ${code} for ${JSON.stringify(answer)}`, async () => {
    await using agent = await openFakeAgent(answerWith(answer));
    const end = await forkd(["exec", "--target", agent.target, "--", "x"]);
    assert.equal(end.code, code);
    assert.match(end.err, err);
  });
}

test("exec --json prints the whole end", async () => {
  await using agent = await openFakeAgent(answerWith({ stdout: "a", stderr: "", exit_code: 3 }));
  const end = await forkd(["exec", "--json", "--target", agent.target, "--", "x", "--json"]);
  assert.equal(end.code, 3);
  assert.equal(JSON.parse(end.out).stdout, "a");
  assert.deepEqual(agent.requests, [{ action: "exec", args: ["x", "--json"], timeout: 30 }]);
});

test("eval prints the value's text, else its JSON", async () => {
  await using json = await openFakeAgent(answerWith({ result_json: "[1]" }));
  const first = await forkd(["eval", "--target", json.target, "--", "1", "+", "1"]);
  assert.deepEqual(first, { code: 0, out: "[1]", err: "" });
  assert.deepEqual(json.requests, [{ action: "eval", code: "1 + 1" }]);
  await using plain = await openFakeAgent(answerWith({ result: "'y'", exit_code: 0 }));
  assert.equal((await forkd(["eval", "--target", plain.target, "--", "y"])).out, "'y'");
});

test("eval exits with 1 and shows the traceback when the code raises", async () => {
  const answer = { error: "NameError: z", traceback: "line 1", exit_code: 1 };
  await using agent = await openFakeAgent(answerWith(answer));
  const end = await forkd(["eval", "--target", agent.target, "--", "z"]);
  assert.equal(end.code, 1);
  assert.equal(end.err, "NameError: z\nline 1");
});

test("ping prints the agent's answer, also that of an older agent", async () => {
  await using agent = await openFakeAgent(answerWith({ pong: true, pid: 1 }));
  const end = await forkd(["ping", "--target", agent.target]);
  assert.equal(end.code, 0, end.err);
  const { pong, numpy_version: numpy } = JSON.parse(end.out);
  assert.deepEqual([pong, numpy], [true, "not-installed"]);
});

test("what is no answer is no answer", async () => {
  for (const text of ["", "nonsense\n", "[]\n", '{"exit_code":"0"}\n']) {
    await using agent = await openFakeAgent((socket) => void socket.end(text));
    const end = await forkd(["exec", "--json", "--target", agent.target, "--", "x"]);
    assert.equal(end.code, 1, text);
    assert.equal(JSON.parse(end.err).code, "agent_unavailable", text);
  }
});

test("a connection that breaks is a failure", async () => {
  await using agent = await openFakeAgent((socket) => void socket.resetAndDestroy());
  const end = await forkd(["exec", "--json", "--target", agent.target, "--", "x"]);
  assert.equal(JSON.parse(end.err).code, "agent_unavailable");
});

test("an agent that never answers costs the timeout and its grace, not for ever", async () => {
  await using agent = await openFakeAgent(() => undefined);
  const args = ["exec", "--json", "--timeout-secs", "1", "--target", agent.target, "--", "x"];
  const end = await forkd(args);
  assert.equal(end.code, 1);
  assert.equal(JSON.parse(end.err).code, "deadline_exceeded");
});

test("SIGTERM ends a wait with 143", async () => {
  await using agent = await openFakeAgent(() => undefined);
  const started = performance.now();
  const end = await forkd(["exec", "--target", agent.target, "--", "x"], { stopAfterMs: 1500 });
  assert.deepEqual(end, { code: 143, out: "", err: "" });
  assert.ok(performance.now() - started < 4000);
});
