import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { ForkdError } from "@forkd/api";
import { eventually } from "../../helpers/eventually.ts";
import { listenForTest, TestServer } from "../../helpers/test-server.ts";
import { type CliEnd, type CliOptions, forkd } from "./forkd.ts";

/** The verbs that go through a daemon: the real server over a service without machines. */

const token = "a-token-of-the-tests";

async function open(context: TestContext) {
  const server = new TestServer({ token });
  const port = await listenForTest(server, context);
  const env = { FORKD_URL: `http://127.0.0.1:${port}/`, FORKD_TOKEN: token };
  const cli = (args: readonly string[], options: CliOptions = {}): Promise<CliEnd> =>
    forkd(args, { ...options, env });
  return { service: server.service, cli, port };
}

test("spawn, ls, exec, eval, ping and kill work on the daemon's sandboxes", async (context) => {
  const { service, cli } = await open(context);
  const spawned = await cli(["spawn", "--tag", "base", "-n", "2"]);
  assert.equal(spawned.code, 0, spawned.err);
  const [line = "", second] = spawned.out.split("\n");
  assert.match(line, /^✓ (\S+) {2}guest=10\.42\.0\.2:8888 {2}netns=—$/);
  assert.ok(second !== undefined);
  const id = line.split(" ")[1] ?? "";

  const listed = await cli(["ls"]);
  assert.match(listed.out, /^ID +SNAPSHOT +PID/);
  assert.equal(listed.out.split("\n").length, 3);
  assert.equal(listed.err, "==> 2 sandboxes");

  assert.deepEqual(await cli(["exec", id, "--", "echo", "-n", "x"]), {
    code: 0,
    out: "echo -n x",
    err: "",
  });
  assert.equal((await cli(["eval", "--id", id, "--", "1", "+", "1"])).out, "printed\n1 + 1");
  assert.equal(JSON.parse((await cli(["ping", id])).out).agent_lang, "c");

  assert.deepEqual(await cli(["kill", id]), { code: 0, out: `✓ ${id}`, err: "" });
  const all = await cli(["kill", "--all", "--json"]);
  assert.equal(JSON.parse(all.out).length, 1);
  assert.equal(service.sandboxes.size, 0);
  assert.equal((await cli(["kill", "--tag", "base"])).err, "==> no sandbox matches");
});

test("one that cannot be killed makes the exit code 1, the others are killed", async (context) => {
  const { service, cli } = await open(context);
  const { out } = await cli(["spawn", "--tag", "base", "--json"]);
  const id: string = JSON.parse(out)[0].id;
  const end = await cli(["kill", "sb-gone", id]);
  assert.equal(end.code, 1);
  assert.match(end.out, /^✗ sb-gone /m);
  assert.match(end.out, new RegExp(`^✓ ${id}$`, "m"));
  assert.equal(service.sandboxes.size, 0);
});

test("the daemon's failures keep their code and hint", async (context) => {
  const { service, cli } = await open(context);
  const unknown = await cli(["spawn", "--tag", "unknown", "--json"]);
  assert.equal(unknown.code, 1);
  assert.equal(JSON.parse(unknown.err).code, "snapshot_not_found");
  service.fault = new ForkdError("disk_full", "no room", { hint: "make room" });
  const full = await cli(["spawn", "--tag", "base"]);
  assert.equal(full.code, 1);
  assert.match(full.err, /no room\nhint: make room$/);
});

test("fork goes through the daemon, keeps its lines, and leaves nothing", async (context) => {
  const { service, cli } = await open(context);
  const end = await cli(["fork", "--tag", "base", "-n", "3", "--settle-secs", "0"]);
  assert.equal(end.code, 0, end.err);
  const lines = end.out.split("\n");
  assert.equal(lines.length, 4);
  assert.match(lines[0] ?? "", /^==> all sockets up in \d+ ms$/);
  assert.match(lines[1] ?? "", /^==> 3 restores fired in parallel in \d+ ms$/);
  const millis = lines.slice(0, 3).map((line) => Number(/(\d+) ms$/.exec(line)?.[1]));
  assert.equal(lines[2]?.split(/\s+/)[3], String((millis[0] ?? 0) + (millis[1] ?? 0)));
  assert.equal(lines[3], "==> 3 / 3 children alive");
  assert.equal(service.sandboxes.size, 0);
});

test("fork counts the children that answer, not those that were made", async (context) => {
  const { service, cli } = await open(context);
  const running = cli(["fork", "--tag", "base", "-n", "2", "--settle-secs", "1", "--json"]);
  // The fault begins after the spawn: the first lines are printed, then the pings fail.
  await eventually(() => assert.equal(service.sandboxes.size, 2));
  service.fault = new ForkdError("agent_unavailable", "silent");
  const end = await running;
  assert.equal(end.code, 1);
  assert.equal(JSON.parse(end.out).alive, 0);
  assert.equal(service.sandboxes.size, 0);
});

test("SIGTERM while children live ends them and exits with 143", async (context) => {
  const { service, cli } = await open(context);
  const args = ["fork", "--tag", "base", "-n", "1", "--settle-secs", "3600"];
  const end = await cli(args, { stopAfterMs: 2000 });
  assert.equal(end.code, 143, end.err);
  assert.equal(service.spawnRequests.length, 1);
  assert.equal(service.sandboxes.size, 0);
});

test("images and rmi ask the daemon first", async (context) => {
  const { service, cli } = await open(context);
  const images = await cli(["images"]);
  assert.match(
    images.out,
    /^TAG +SIZE +MEMORY +DEPTH +PARENT +CREATED +ENGINE +IMAGE +STATUS\nbase /,
  );
  assert.deepEqual(await cli(["rmi", "base"]), { code: 0, out: "✓ base (daemon)", err: "" });
  assert.equal(service.snapshots.size, 0);
});

test("images says of which snapshots this host has no engine, and why", async (context) => {
  const { service, cli } = await open(context);
  const base = service.snapshots.get("base") ?? assert.fail("there is no snapshot");
  const warning = "it needs firecracker 1.17.0, this host has 1.16.1";
  service.snapshots.set("other", { ...base, tag: "other", bootable: false, warning });
  const { out, err } = await cli(["images"]);
  const statuses = out.split("\n").map((line) => [line.split(" ")[0], line.split(" ").at(-1)]);
  assert.deepEqual(statuses.sort(), [
    ["TAG", "STATUS"],
    ["base", "ready"],
    ["other", "not_bootable"],
  ]);
  assert.equal(err, `warning: other: ${warning}\n==> 2 snapshots, 0 B`);
  // Programs read what the API says, whose words are upstream's.
  const listed: { tag: string; status: string; bootable: boolean }[] = JSON.parse(
    (await cli(["images", "--json"])).out,
  );
  const other = listed.find(({ tag }) => tag === "other");
  assert.deepEqual([other?.status, other?.bootable], ["ready", false]);
});

test("a wrong token is said, and a token is sent to the daemon only", async (context) => {
  const { port } = await open(context);
  const env = { FORKD_URL: `http://127.0.0.1:${port}`, FORKD_TOKEN: "another-token-entirely" };
  const end = await forkd(["ls", "--json"], { env });
  assert.equal(end.code, 1);
  assert.equal(JSON.parse(end.err).code, "unauthorized");
});
