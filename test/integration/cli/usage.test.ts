import assert from "node:assert/strict";
import { readdir } from "node:fs/promises";
import { after, before, test } from "node:test";
import { makeTmpDir, type TmpDir } from "../../helpers/tmp.ts";
import { forkd, forkdWithBytes } from "./forkd.ts";

/** Bad input, as processes see it: the exit code, the error, the hint, and nothing left behind. */

let data: TmpDir;
before(async () => {
  data = await makeTmpDir("cli");
});
after(() => data[Symbol.asyncDispose]());

const local = ([verb = "", ...rest]: readonly string[]) =>
  forkd([verb, "--data-dir", data.path, ...rest], { env: noUrl });
/** The default address: nothing listens there on a test host, or it has no such tag. */
const noUrl = { FORKD_URL: "" };

const mistakes: readonly (readonly [string, RegExp])[] = [
  ["nonsense", /unknown command 'nonsense'/],
  ["fork --tag t", /-n, --n <count>' not specified/],
  ["fork -n 1", /--tag <tag>' not specified/],
  ["fork --tag t -n 0", /from 1 to 1000, not "0"/],
  ["fork --tag t -n 1001", /from 1 to 1000, not "1001"/],
  ["fork --tag ../x -n 1", /invalid tag "..\/x"/],
  ["fork --tag t -n 1 --egress allow", /--egress needs --per-child-netns/],
  ["spawn --tag t --per-child-netns --egress open", /--egress is no policy/],
  ["netns setup 1001", /N must be a whole number from 1 to 1000/],
  ["netns setup 1 root more", /too many arguments/],
  ["fork --tag t -n 1 extra", /too many arguments/],
  ["spawn --tag t -n 0", /from 1 to 1000/],
  ["spawn --tag t --hugepages", /needs --live-fork/],
  ["snapshot --from-sandbox sb-1 --diff --live", /cannot be used with/],
  ["snapshot --from-sandbox sb-1 --no-wait", /--no-wait needs --live/],
  ["snapshot --tag t --rootfs /x --live", /--live needs --from-sandbox/],
  ["branch", /missing required argument/],
  ["branch sb-1 --max-pause-ms 0", /from 1 to/],
  ['snapshot-diff --from a --tag b --exec "', /never closed/],
  ["snapshot --rootfs /x", /--tag needs a value/],
  ["from-image x --tag t --tap forkd-tap0", /--tap is not supported/],
  ["from-image x --tag t --warm ruby", /Allowed choices are python, node/],
  ["from-image x --tag t --mem-size-mib 64", /--mem-size-mib must be/],
  ["from-image x --tag t --warm-cmd y --ready nonsense", /not a readiness probe/],
  ["exec sb-1", /no command/],
  ["exec --id a --target b:1 -- ls", /cannot be used with/],
  ["exec --target b:1 -e A=B -- ls", /does not work with --target/],
  ["exec --child a/b -- ls", /not the name of a network namespace/],
  ["eval sb-1", /no code/],
  ["kill", /name the sandboxes/],
  ["kill sb-1 --all", /one of them only/],
  ["rmi ../x", /invalid tag/],
  ["run --image x", /no command/],
  ["ls --daemon-url nonsense", /not an http or https address/],
];

for (const [line, message] of mistakes) {
  test(`usage: forkd ${line}`, async () => {
    const end = await forkd(line.split(" "));
    assert.equal(end.code, 2, end.err);
    assert.match(end.err, message);
    assert.match(end.err, /^hint: ./m);
    assert.equal(end.out, "");
  });
}

test("a near miss is recognised", async () => {
  assert.match((await forkd(["snapshoot"])).err, /Did you mean snapshot\?/);
});

test("without a verb there is help on standard error", async () => {
  const end = await forkd([]);
  assert.equal(end.code, 2);
  assert.match(end.err, /^Usage: forkd/);
});

test("help names the exit codes and never shows a token", async () => {
  for (const args of [["--help"], ["help", "exec"], ["spawn", "--help"], ["kernel", "--help"]]) {
    const end = await forkd(args, { env: { FORKD_TOKEN: "a-very-secret-token" } });
    assert.equal(end.code, 0, end.err);
    assert.ok(!end.out.includes("secret"));
    if (args[0] !== "kernel") assert.match(end.out, /Exit codes:/);
  }
});

test("version and where answer without a daemon", async () => {
  assert.match((await forkd(["--version"])).out, /^\d+\.\d+\.\d+$/);
  const version = await forkd(["version", "--json"]);
  assert.equal(JSON.parse(version.out).daemon, null);
  assert.equal((await local(["where"])).out, data.path);
  assert.equal(JSON.parse((await local(["where", "--json"])).out).dataDir, data.path);
});

const failures: readonly (readonly [string, string])[] = [
  ["fork --tag unknown -n 1", "snapshot_not_found"],
  ["rmi unknown", "snapshot_not_found"],
  ["from-image debian:bookworm --tag t", "kernel_not_found"],
  ["from-image debian:bookworm --tag t --kernel /nonexistent", "kernel_not_found"],
  ["snapshot --tag t --rootfs /nonexistent", "kernel_not_found"],
  ["exec --target 127.0.0.1:9 -- true", "agent_unavailable"],
  ["exec --child no-such-netns -- true", "bad_request"],
];

for (const [line, code] of failures) {
  test(`failure: forkd ${line}`, async () => {
    const [verb = "", ...rest] = line.split(" ");
    const end = await local([verb, "--json", ...rest]);
    assert.equal(end.code, 1, end.err);
    const problem: unknown = JSON.parse(end.err);
    assert.ok(typeof problem === "object" && problem !== null && "code" in problem);
    assert.equal(problem.code, code);
    assert.ok("hint" in problem && problem.hint !== "");
  });
}

test("failures leave nothing in the data directory but the log of what was tried", async () => {
  const files = await readdir(data.path, { recursive: true, withFileTypes: true });
  assert.deepEqual(
    files
      .filter((file) => file.isFile())
      .map((file) => file.name)
      .sort(),
    ["audit.log", "audit.log.head"],
  );
});

test("verbs of the daemon say that it is missing", async () => {
  for (const args of [["ls"], ["spawn", "--tag", "t"], ["kill", "sb-1"], ["ping", "sb-1"]]) {
    const end = await forkd([...args, "--json"]);
    assert.equal(end.code, 1, end.err);
    assert.match(end.err, /daemon_unreachable|no daemon answers/);
  }
});

test("a daemon that was named is not done without", async () => {
  const end = await forkd(["images", "--daemon-url", "http://127.0.0.1:9", "--json"]);
  assert.equal(end.code, 1);
  assert.equal(JSON.parse(end.err).code, "daemon_unreachable");
});

test("no images is an empty list", async () => {
  const end = await local(["images", "--json"]);
  assert.equal(end.code, 0, end.err);
  assert.deepEqual(JSON.parse(end.out), []);
});

test("a command line that is no UTF-8 is refused, and a replacement character is one", async () => {
  const bad = await forkdWithBytes(["exec", "sb-1-1", "--", "echo"], "a\\377");
  assert.deepEqual([bad.code, bad.out], [2, ""]);
  assert.match(bad.err, /bytes that are not UTF-8/);
  const good = await forkdWithBytes(["exec", "sb-1-1", "--", "echo"], "\\357\\277\\275");
  assert.equal(good.code, 1, "it went on to the daemon, which is not there");
  assert.match(good.err, /no daemon answers/);
});
