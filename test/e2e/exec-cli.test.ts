/** forkd exec -it and its kin, as a person at a terminal uses them. */
import assert from "node:assert/strict";
import { constants } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { type Baked, ensureBaked, repoRoot } from "../helpers/baked.ts";
import { missing } from "../helpers/capabilities.ts";
import { skipWithout } from "../helpers/capability.ts";
import { forkd, startForkd } from "../helpers/cli.ts";
import { startDaemon, type TestDaemon } from "../helpers/daemon.ts";
import { type DataDir, makeDataDir } from "../helpers/data-dir.ts";
import { eventually } from "../helpers/eventually.ts";
import { atTerminal, type TerminalStep } from "../helpers/terminal.ts";

describe("forkd exec -it", { skip: skipWithout("root", "qemu", "guest-agent") }, () => {
  let baked: Baked;
  let data: DataDir;
  let daemon: TestDaemon;
  let id: string;

  before(async () => {
    baked = await ensureBaked();
    data = await makeDataDir("exec-cli", baked);
    daemon = await startDaemon(data.path);
    const [info] = await daemon.client.createSandboxes({ body: { snapshot_tag: baked.tag } });
    id = info?.id ?? assert.fail("no sandbox");
  });
  after(async () => {
    await daemon?.killAll();
    await data?.assertNothingLeft();
    await data?.[Symbol.asyncDispose]();
  });

  const run = (args: string[], input?: string) =>
    forkd(args, { dataDir: data.path, daemon, ...(input === undefined ? {} : { input }) });
  const person = (args: string[], steps: TerminalStep[]) =>
    atTerminal([join(repoRoot, "bin/forkd"), ...args], steps, {
      FORKD_DATA_DIR: data.path,
      FORKD_URL: daemon.url,
      FORKD_TOKEN: daemon.token,
      TERM: "vt220",
    });
  const execs = async () => await daemon.client.listExecs({ params: { id } });

  const noTerminal = missing({ programs: ["python3"] });

  test("a shell: its size follows the window, its code is ours", { skip: noTerminal }, async () => {
    const end = await person(
      ["exec", "-it", id, "-e", "PS1=guest> ", "--", "/bin/sh"],
      [
        { expect: "guest> " },
        { type: "stty size; echo $TERM\r" },
        { expect: "30 100\r\nvt220\r\n" },
        { resize: [51, 77] },
        // Only a program that runs has the terminal: before that, the key would be the shell's.
        { type: "sh -c 'echo up$((1)); exec sleep 60'\r" },
        { expect: "up1\r\n" },
        { type: "\x03" },
        { expect: "guest> " },
        { type: "stty size\r" },
        { expect: "51 77\r\n" },
        { type: "exit 7\r" },
      ],
    );
    assert.deepEqual([end.code, end.restored], [7, true], end.shown);
  });

  test("the detach keys leave it, attach returns to it", { skip: noTerminal }, async () => {
    const left = await person(
      ["exec", "-it", id, "--", "/bin/sh", "-c", "echo on; cat"],
      [{ expect: "on\r\n" }, { type: "one\x10\x11" }, { expect: "forkd attach" }],
    );
    assert.deepEqual([left.code, left.restored], [0, true], left.shown);
    const [kept] = (await execs()).filter(({ running }) => running);
    assert.equal(kept?.attached, false);
    const exec = kept?.exec_id ?? "";
    const back = await person(
      ["attach", id, exec, "--detach-keys", "ctrl-],x"],
      [{ expect: "on\r\n" }, { type: "\x10 two\r" }, { expect: "two\r\n" }, { type: "\x1dx" }],
    );
    assert.deepEqual([back.code, back.restored], [0, true], back.shown);
    assert.match((await run(["execs", id])).stdout, new RegExp(`${exec} .* running `));
    assert.equal((await run(["execs", id, "--kill", exec])).code, 0);
    assert.ok(!(await execs()).some(({ exec_id }) => exec_id === exec));
  });

  test("the terminal is given back when the command line is ended", {
    skip: noTerminal,
  }, async () => {
    const end = await person(
      ["exec", "-it", id, "--", "sh", "-c", "echo on; sleep 60"],
      [{ expect: "on\r\n" }, { signal: constants.signals.SIGTERM }],
    );
    assert.deepEqual([end.code, end.restored], [143, true], end.shown);
  });

  test("piped input, both outputs, a reader that goes away", async () => {
    const big = "x".repeat(3_000_000);
    const counted = await run(["exec", "-i", id, "--", "wc", "-c"], big);
    assert.deepEqual([counted.stdout, counted.code], ["3000000\n", 0]);
    const both = await run(["exec", "-i", id, "--", "sh", "-c", "cat; echo e >&2; exit 5"], "in");
    assert.deepEqual([both.stdout, both.stderr, both.code], ["in", "e\n", 5]);
    const killed = await run(["exec", "-i", id, "--", "sh", "-c", "kill -TERM $$"]);
    assert.equal(killed.code, 143);
    const late = await run(["exec", "-i", id, "--timeout-secs", "1", "--", "sleep", "60"]);
    assert.equal(late.code, 124);
    const early = await run(["exec", "-i", id, "--", "true"], big);
    assert.equal(early.code, 0, "input that nobody reads is no failure");
    const reader = startForkd(["exec", "-i", id, "--", "yes"], { dataDir: data.path, daemon });
    await new Promise((resolve) => reader.process.stdout?.once("data", resolve));
    reader.process.stdout?.destroy();
    assert.equal((await reader.ended).code, 141, "128 + SIGPIPE, as of a pipe");
  });

  test("detached from the start, listed, and ended with the command line", async () => {
    const begun = await run(["exec", "-d", "--json", id, "--", "sh", "-c", "echo a; exit 3"]);
    const { exec_id } = JSON.parse(begun.stdout) as { exec_id: string };
    await eventually(async () => {
      const listed = (await execs()).find((each) => each.exec_id === exec_id);
      assert.equal(listed?.end?.exit_code, 3);
    });
    const shown = await run(["attach", id, exec_id]);
    assert.deepEqual([shown.stdout, shown.code], ["a\n", 3]);
    const ended = startForkd(["exec", "-i", id, "--", "sh", "-c", "echo on; sleep 64"], {
      dataDir: data.path,
      daemon,
    });
    await ended.said(/^on$/);
    ended.process.kill("SIGTERM");
    assert.equal((await ended.ended).code, 143);
    await eventually(async () => assert.ok((await execs()).every(({ running }) => !running)));
  });

  test("mistakes on the command line start nothing", async () => {
    const before = (await execs()).length;
    for (const [args, code] of [
      [["exec", "-t", id, "--", "ls"], 2],
      [["exec", "-i", "--json", id, "--", "ls"], 2],
      [["exec", "-i", "--detach-keys", "ctrl-!", id, "--", "ls"], 2],
      [["exec", "-i", "--target", "127.0.0.1:1", "--", "ls"], 2],
      [["attach", id, "nonsense"], 2],
      [["attach", id, "ex-0123456789abcdef"], 1],
      [["exec", "-i", id, "--", "/no/such"], 1],
    ] as const) {
      const end = await run([...args]);
      assert.equal(end.code, code, `${args.join(" ")}: ${end.stderr}`);
      assert.match(end.stderr, /^(error: .*\nhint: .|\{"error":)/, args.join(" "));
    }
    assert.equal((await execs()).length, before);
  });
});
