import assert from "node:assert/strict";
import { PassThrough } from "node:stream";
import { test } from "node:test";
import { ForkdError } from "@forkd/api";
import { Output, type Stream } from "@forkd/host/cli/output.ts";

function open(options: { json?: boolean; tty?: boolean; noColor?: string } = {}) {
  const stdout = new PassThrough();
  const stderr: Stream & PassThrough = Object.assign(new PassThrough(), {
    isTTY: options.tty ?? false,
  });
  const { json = false, noColor } = options;
  const output = new Output({ stdout, stderr, json, noColor });
  const read = (): { out: string; err: string } => ({
    out: String(stdout.read() ?? ""),
    err: String(stderr.read() ?? ""),
  });
  return { output, read };
}

const problem = new ForkdError("disk_full", "no room", { hint: "make some" });

test("results go to standard output, all else to standard error", () => {
  const { output, read } = open();
  output.line("result");
  output.progress("working");
  output.problem(problem);
  assert.deepEqual(read(), {
    out: "result\n",
    err: "==> working\nerror: no room\nhint: make some\n",
  });
});

test("with JSON there is one value on each side, and no progress", () => {
  const { output, read } = open({ json: true });
  output.progress("working");
  output.warn("careful");
  output.data({ a: 1 });
  output.problem(problem);
  const { out, err } = read();
  assert.deepEqual(JSON.parse(out), { a: 1 });
  assert.deepEqual(JSON.parse(err), { error: "no room", code: "disk_full", hint: "make some" });
});

test("colour is for terminals whose user did not say NO_COLOR", () => {
  const colored = (options: { tty?: boolean; noColor?: string }): boolean => {
    const { output, read } = open(options);
    output.problem(problem);
    return read().err.includes("\u001b[");
  };
  assert.equal(colored({ tty: true }), true);
  assert.equal(colored({ tty: true, noColor: "" }), true);
  assert.equal(colored({ tty: true, noColor: "1" }), false);
  assert.equal(colored({ tty: false }), false);
});

test("a reader that went away does not break what follows", async () => {
  const stdout = new PassThrough();
  const stderr = new PassThrough();
  const output = new Output({ stdout, stderr, json: false, noColor: undefined });
  stdout.destroy(new Error("EPIPE"));
  output.line("lost");
  await output.flush();
});
