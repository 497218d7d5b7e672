/** The verbs that talk to a daemon, as a user types them, with real VMs behind. */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { type Baked, ensureBaked } from "../helpers/baked.ts";
import { skipWithout } from "../helpers/capability.ts";
import { type CliEnd, endsAfter, forkd, startForkd } from "../helpers/cli.ts";
import { startDaemon, type TestDaemon } from "../helpers/daemon.ts";
import { type DataDir, makeDataDir } from "../helpers/data-dir.ts";
import { eventually } from "../helpers/eventually.ts";
import { vmmProcesses } from "../helpers/vmm-processes.ts";

describe("verbs of the daemon", { skip: skipWithout("root", "qemu", "guest-agent") }, () => {
  let baked: Baked;
  let data: DataDir;
  let daemon: TestDaemon;
  let ids: string[];

  before(async () => {
    baked = await ensureBaked();
    data = await makeDataDir("verbs", baked);
    daemon = await startDaemon(data.path);
    const spawned = await cli("spawn", "--tag", baked.tag, "-n", "3");
    assert.equal(spawned.code, 0, spawned.stderr);
    ids = [
      ...spawned.stdout.matchAll(/^✓ (sb-[0-9a-f]+-[0-9a-f]+) {2}guest=\S+ {2}netns=—$/gm),
    ].map(([, id]) => id ?? "");
    assert.equal(ids.length, 3, spawned.stdout);
  });
  after(async () => {
    await daemon?.killAll();
    await data?.assertNothingLeft();
    await data?.[Symbol.asyncDispose]();
  });

  const first = () => ids[0] ?? assert.fail();
  const options = () => ({ dataDir: data.path, daemon });
  const cli = (...args: readonly string[]): Promise<CliEnd> => forkd(args, options());
  const sh = (script: string): string[] => [first(), "--", "/bin/sh", "-c", script];
  const patience = { timeoutMs: 20_000 };

  test("ls lists them for people and for programs", async () => {
    const table = await cli("ls");
    const [head = "", ...rows] = table.stdout.trimEnd().split("\n");
    assert.match(head, /^ID +SNAPSHOT +PID /);
    assert.deepEqual(rows.map((row) => row.split(" ")[0]).sort(), ids.toSorted());
    const listed: { id: string; pid: number }[] = JSON.parse((await cli("ls", "--json")).stdout);
    assert.deepEqual(listed.map(({ id }) => id).sort(), ids.toSorted());
    const pids = listed.map(({ pid }) => pid).sort();
    assert.deepEqual(pids, vmmProcesses(data.path).sort());
  });

  test("exec: output goes where it belongs, the exit code passes", async () => {
    const end = await cli("exec", ...sh("echo out; echo err >&2; exit 3"));
    assert.deepEqual([end.stdout, end.stderr, end.code], ["out\n", "err\n", 3]);
    const json = await cli("exec", "--json", ...sh("echo out; exit 3"));
    assert.equal(json.code, 3);
    assert.equal(JSON.parse(json.stdout).stdout, "out\n");
  });

  test("exec: -e, -w, -u and --id", async () => {
    const words = ["-e", "A=1 2", "-e", "B=ü", "-w", "/usr/lib", "-u", "nobody"];
    const script = 'echo "$A,$B"; pwd; id -un';
    const end = await cli("exec", "--id", first(), ...words, "--", "/bin/sh", "-c", script);
    assert.deepEqual([end.stdout, end.code], ["1 2,ü\n/usr/lib\nnobody\n", 0], end.stderr);
  });

  test("exec: standard input only with --stdin", async () => {
    const given = { ...options(), input: "line 1\nline 2" };
    const counted = await forkd(["exec", "--stdin", ...sh("wc -c")], given);
    assert.equal(counted.stdout.trim(), "13", counted.stderr);
    const ignored = await forkd(["exec", ...sh("wc -c")], given);
    assert.equal(ignored.stdout.trim(), "0", ignored.stderr);
  });

  test("exec: a signal is 128 + n, the deadline 124", async () => {
    assert.equal((await cli("exec", ...sh("kill -TERM $$"))).code, 143);
    const late = await cli("exec", "--timeout-secs", "1", ...sh("echo begun; sleep 60"));
    assert.deepEqual([late.code, late.stdout], [124, "begun\n"]);
    assert.match(late.stderr, /killed after 1 s/);
  });

  test("exec: what cannot run says why and what to do", async () => {
    const missing = await cli("exec", first(), "--", "/no/such/program");
    assert.equal(missing.code, 1);
    assert.match(missing.stderr, /^error: .*\/no\/such\/program.*\nhint: .+/);
    const gone = await cli("exec", "sb-0-0000000000000000", "--", "true");
    assert.equal(gone.code, 1);
    assert.match(gone.stderr, /^error: .*not found\nhint: .*forkd ls/);
  });

  test("exec: SIGINT ends the wait, not the sandbox", async () => {
    const run = startForkd(["exec", ...sh("touch /run/begun; sleep 60")], options());
    await eventually(
      async () => assert.equal((await cli("exec", ...sh("test -e /run/begun"))).code, 0),
      patience,
    );
    const end = await endsAfter(run, "SIGINT", patience.timeoutMs);
    assert.equal(end.code, 130);
    assert.equal((await cli("ping", first())).code, 0);
  });

  test("eval: values, state, output, failure, deadline", async () => {
    const evaluate = (...words: readonly string[]) => cli("eval", first(), "--", ...words);
    assert.equal((await evaluate("numpy.zeros(5).tolist()")).stdout, "[0.0, 0.0, 0.0, 0.0, 0.0]\n");
    assert.equal((await evaluate("kept = 41")).code, 0);
    assert.equal((await evaluate("kept", "+", "1")).stdout, "42\n");
    assert.equal((await evaluate("print('said'); 'value'")).stdout, "said\n'value'\n");
    const raised = await evaluate("1 / 0");
    assert.equal(raised.code, 1);
    assert.match(raised.stderr, /ZeroDivisionError/);
    const late = await cli("eval", "--timeout-secs", "1", first(), "--", "while True: pass");
    assert.equal(late.code, 124);
    assert.equal((await evaluate("kept")).stdout, "41\n");
    const json = await cli("eval", "--json", first(), "--", "print('said'); 7");
    assert.deepEqual(
      [JSON.parse(json.stdout).stdout, JSON.parse(json.stdout).result_json],
      [...["said\n", "7"]],
    );
  });

  test("eval: prints as the code does", async () => {
    const code =
      "import os, time\nprint('begun')\nwhile not os.path.exists('/tmp/go'): time.sleep(0.01)";
    const run = startForkd(["eval", "--timeout-secs", "600", first(), "--", code], options());
    await run.said(/^begun$/);
    await cli("exec", first(), "--", "touch", "/tmp/go");
    const { stdout, code: exit } = await run.ended;
    assert.deepEqual([stdout, exit], ["begun\nNone\n", 0]);
  });

  test("ping prints what the agent says", async () => {
    const pong = await cli("ping", first());
    assert.equal(pong.code, 0, pong.stderr);
    assert.equal(JSON.parse(pong.stdout).pong, true);
  });

  test("images and version know the daemon", async () => {
    assert.match((await cli("images")).stdout, new RegExp(`^${baked.tag} .* ready`, "m"));
    const version = await cli("version");
    assert.equal(version.code, 0, version.stderr);
    assert.match(version.stdout, /^forkd \S+\nforkd-controller \S+\n$/);
  });

  test("kill by id, by tag, all; and what is not there", async () => {
    const one = await cli("kill", first());
    assert.deepEqual([one.code, one.stdout], [0, `✓ ${first()}\n`]);
    const again = await cli("kill", first());
    assert.deepEqual([again.code, again.stdout], [0, `✓ ${first()}\n`]);
    const unknown = await cli("kill", "sb-0-unknown");
    assert.equal(unknown.code, 1);
    assert.match(unknown.stdout, /^✗ sb-\S+ {2}.*not found/);
    assert.equal(vmmProcesses(data.path).length, 2);
    assert.equal((await cli("kill", "--tag", "another-tag")).code, 0);
    assert.equal(vmmProcesses(data.path).length, 2);
    assert.equal((await cli("kill", "--all")).code, 0);
    await data.assertNothingLeft();
    assert.match((await cli("ls")).stderr, /no sandboxes/);
  });

  test("a wrong token is refused with a hint", async () => {
    const end = await forkd(["ls"], { ...options(), daemon: { url: daemon.url, token: "wrong" } });
    assert.equal(end.code, 1);
    assert.match(end.stderr, /^error: .+\nhint: .*FORKD_TOKEN/m);
  });
});
