/** `forkd-mcp` as a process, the official client before it and the daemon's server behind it. */
import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { callNames, ForkdError, routes } from "@forkd/api";
import {
  httpSession,
  type McpSession,
  startHttpServer,
  stdioSession,
  structured,
  textOf,
} from "../../helpers/mcp.ts";
import { listenForTest, TestServer } from "../../helpers/test-server.ts";
import { makeTmpDir } from "../../helpers/tmp.ts";

const token = "a-token-of-the-mcp-tests";

async function daemonFor(context: TestContext) {
  const server = new TestServer({ token });
  const port = await listenForTest(server, context);
  return { server, daemon: { url: `http://127.0.0.1:${port}`, token } };
}

async function sessionFor(context: TestContext): Promise<{ server: TestServer; mcp: McpSession }> {
  const { server, daemon } = await daemonFor(context);
  const mcp = await stdioSession(daemon);
  context.after(() => mcp[Symbol.asyncDispose]());
  return { server, mcp };
}

test("upstream's eleven tools are there, with its parameters and defaults", async (context) => {
  const { mcp } = await sessionFor(context);
  const { tools } = await mcp.client.listTools();
  const byName = new Map(tools.map((tool) => [tool.name, tool]));
  const upstream: Record<string, Record<string, unknown>> = {
    list_snapshots: {},
    spawn_sandboxes: {
      ...{ snapshot_tag: undefined, n: 1, per_child_netns: false, memory_limit_mib: 256 },
      ...{ prewarm: false, live_fork: false },
    },
    branch_sandbox: {
      ...{ sandbox_id: undefined, tag: undefined, diff: false, measure_diff: false },
      ...{ mode: undefined, wait: true },
    },
    create_snapshot: {
      ...{ tag: undefined, kernel: undefined, rootfs: undefined, rw: false },
      ...{ tap: undefined, boot_wait_secs: 10 },
    },
    wait_for_text: {
      ...{ sandbox_id: undefined, path: undefined, marker: undefined },
      ...{ timeout_secs: 60, poll_interval_ms: 200 },
    },
    list_sandboxes: {},
    get_sandbox: { sandbox_id: undefined },
    kill_sandbox: { sandbox_id: undefined },
    exec_command: { sandbox_id: undefined, args: undefined, timeout_secs: 30 },
    eval_code: { sandbox_id: undefined, code: undefined },
    ping_sandbox: { sandbox_id: undefined },
  };
  for (const [name, parameters] of Object.entries(upstream)) {
    const { inputSchema } = byName.get(name) ?? assert.fail(`${name} is missing`);
    const properties = inputSchema.properties as Record<string, { default?: unknown }>;
    for (const [parameter, expected] of Object.entries(parameters)) {
      assert.ok(properties[parameter], `${name} has no ${parameter}`);
      assert.equal(properties[parameter]?.default, expected, `${name}.${parameter}`);
    }
  }
  const required = (name: string) => byName.get(name)?.inputSchema.required;
  assert.deepEqual(required("spawn_sandboxes"), ["snapshot_tag"]);
  assert.deepEqual(required("branch_sandbox"), ["sandbox_id"]);
});

test("every row of the route table below /v1 has a tool, described and annotated", async (context) => {
  const { mcp } = await sessionFor(context);
  const { tools } = await mcp.client.listTools();
  const rows = callNames.filter((name) => routes[name].path.startsWith("/v1/"));
  const ownTools = ["read_file", "write_file", "wait_for_text"];
  assert.equal(tools.length, rows.length + ownTools.length);
  assert.deepEqual(
    tools.slice(-ownTools.length).map(({ name }) => name),
    ownTools,
  );
  for (const { name, description = "", inputSchema, outputSchema, annotations } of tools) {
    assert.match(name, /^[a-z]+(_[a-z]+)*$/);
    assert.ok(description.length > 20, name);
    assert.deepEqual([inputSchema.type, outputSchema?.type], ["object", "object"], name);
    assert.equal(annotations?.openWorldHint, false, name);
  }
  const hints = new Map(tools.map(({ name, annotations }) => [name, annotations]));
  assert.equal(hints.get("kill_sandbox")?.destructiveHint, true);
  assert.equal(hints.get("write_file")?.destructiveHint, true);
  assert.equal(hints.get("list_sandboxes")?.readOnlyHint, true);
  assert.equal(hints.get("read_file")?.readOnlyHint, true);
  assert.equal(hints.get("exec_command")?.readOnlyHint, false);
});

test("a result is text for a model and an object for a program", async (context) => {
  const { server, mcp } = await sessionFor(context);
  const spawned = await mcp.call("spawn_sandboxes", { snapshot_tag: "base", n: 2 });
  const { result } = structured(spawned) as { result: { id: string }[] };
  assert.equal(result.length, 2);
  assert.deepEqual(JSON.parse(textOf(spawned)), result);
  assert.equal(server.service.spawnRequests[0]?.count, 2);
  const id = result[0]?.id ?? assert.fail();
  const ran = structured(await mcp.call("exec_command", { sandbox_id: id, args: ["a", "b"] }));
  assert.deepEqual([ran["stdout"], ran["exit_code"]], ["a b\n", 0]);
  const killed = structured(await mcp.call("kill_sandbox", { sandbox_id: id }));
  assert.deepEqual(killed, { id, killed: true });
  assert.equal(server.service.sandboxes.has(id), false);
  const removed = structured(await mcp.call("delete_snapshot", { tag: "base" }));
  assert.deepEqual(removed, { tag: "base", deleted: true });
});

test("a failure says what, why, and which tool to call", async (context) => {
  const { server, mcp } = await sessionFor(context);
  // A client that has the tools' schemas checks results against them.
  await mcp.client.listTools();
  const missing = await mcp.call("get_sandbox", { sandbox_id: "sb-none" });
  assert.equal(missing.isError, true);
  assert.equal(
    textOf(missing),
    "error sandbox_not_found: sandbox 'sb-none' not found\n" +
      "hint: call list_sandboxes for the ids that there are",
  );
  assert.deepEqual(missing._meta, {
    "forkd/problem": {
      error: "sandbox 'sb-none' not found",
      code: "sandbox_not_found",
      hint: "call list_sandboxes for the ids that there are",
      retry_after_secs: null,
    },
  });
  server.service.fault = new ForkdError("busy", "too much at once", { retryAfterSecs: 7 });
  const busy = await mcp.call("spawn_sandboxes", { snapshot_tag: "base" });
  assert.match(textOf(busy), /^error busy: too much at once\nhint: .*\nretry: after 7 s$/);
});

test("wrong arguments are told by name, and nothing is sent", async (context) => {
  const { server, mcp } = await sessionFor(context);
  const wrong: [string, Record<string, unknown>, RegExp][] = [
    ["spawn_sandboxes", {}, /snapshot_tag/],
    ["spawn_sandboxes", { snapshot_tag: "base", n: 0 }, /\bn\b/],
    ["spawn_sandboxes", { snapshot_tag: "../x" }, /snapshot_tag/],
    ["exec_command", { sandbox_id: "x", args: "ls" }, /args/],
    ["wait_for_text", { sandbox_id: "x", path: "relative", marker: "m" }, /absolute path/],
    ["wait_for_text", { sandbox_id: "x", path: "/a\0b", marker: "m" }, /absolute path/],
  ];
  for (const [name, args, reason] of wrong) {
    const result = await mcp.call(name, args);
    assert.match(textOf(result), /^error bad_request: /);
    assert.match(textOf(result), reason);
  }
  const dots = await mcp.call("get_sandbox", { sandbox_id: ".." });
  assert.match(textOf(dots), /^error bad_request: /);
  assert.equal(server.audited.length, 0);
  await assert.rejects(mcp.call("no_such_tool"), /there is no tool/);
});

test("a guest's long output loses its middle", async (context) => {
  const { server, mcp } = await sessionFor(context);
  const [child] = await server.service.spawn({ tag: "base", count: 1 } as never);
  const long = "x".repeat(100_000);
  const args = { sandbox_id: child?.info.id ?? "", args: ["begin", long, "end"] };
  const { stdout, truncated } = structured(await mcp.call("exec_command", args));
  assert.equal(truncated, true);
  assert.ok(String(stdout).length < 70_000);
  assert.match(String(stdout), /^begin x+\n\[\d+ characters left out\]\nx+ end\n$/);
});

test("resources: the collections, each entry, and names to complete", async (context) => {
  const { server, mcp } = await sessionFor(context);
  const [child] = await server.service.spawn({ tag: "base", count: 1 } as never);
  const id = child?.info.id ?? assert.fail();
  const { resources } = await mcp.client.listResources();
  assert.deepEqual(
    resources.map(({ uri }) => uri),
    [
      ...["forkd://snapshots", "forkd://sandboxes"],
      ...["forkd://snapshots/base", `forkd://sandboxes/${id}`],
    ],
  );
  for (const { uri } of resources) {
    const [content] = (await mcp.client.readResource({ uri })).contents;
    assert.equal(content?.mimeType, "application/json");
    const value = JSON.parse(content !== undefined && "text" in content ? content.text : "");
    assert.match(JSON.stringify(value), uri.includes("snapshot") ? /"tag":"base"/ : /"id":"sb-/);
  }
  const { resourceTemplates } = await mcp.client.listResourceTemplates();
  assert.equal(resourceTemplates.length, 2);
  const { completion } = await mcp.client.complete({
    ref: { type: "ref/resource", uri: "forkd://snapshots/{tag}" },
    argument: { name: "tag", value: "b" },
  });
  assert.deepEqual(completion.values, ["base"]);
  for (const uri of ["forkd://snapshots/none", "forkd://nothing", "file:///etc/passwd"]) {
    await assert.rejects(mcp.client.readResource({ uri }), /not_found|bad_request/, uri);
  }
});

test("a daemon that is not there, or does not let us in, is told", async (context) => {
  const { daemon } = await daemonFor(context);
  await using gone = await stdioSession({ url: "http://127.0.0.1:9", token });
  assert.match(textOf(await gone.call("list_snapshots")), /^error daemon_unreachable: /);
  await assert.rejects(gone.client.listResources(), /daemon_unreachable/);
  await using stranger = await stdioSession({ ...daemon, token: "wrong" });
  const refused = await stranger.call("list_snapshots");
  assert.match(textOf(refused), /^error unauthorized: .*\nhint: .*FORKD_TOKEN/);
});

test("a cancelled call ends the daemon's request", async (context) => {
  const { server, mcp } = await sessionFor(context);
  const [child] = await server.service.spawn({ tag: "base", count: 1 } as never);
  const { promise: held, resolve } = Promise.withResolvers<void>();
  server.service.hold = held;
  const stop = new AbortController();
  const params = { name: "ping_sandbox", arguments: { sandbox_id: child?.info.id } };
  const call = mcp.client.callTool(params, undefined, { signal: stop.signal });
  const rejected = assert.rejects(call);
  stop.abort();
  await rejected;
  resolve();
  assert.equal((await mcp.client.listTools()).tools.length > 10, true);
});

test("over HTTP: the same tools, for many clients at one time", async (context) => {
  const { daemon } = await daemonFor(context);
  await using http = await startHttpServer(daemon);
  const sessions = await Promise.all(Array.from({ length: 4 }, () => httpSession(http.url)));
  const lists = await Promise.all(sessions.map(({ call }) => call("list_snapshots")));
  for (const list of lists) assert.match(textOf(list), /"tag":"base"/);
  await Promise.all(sessions.map(({ client }) => client.close()));
  assert.equal(http.process.exitCode, null);
});

test("over HTTP: web pages, foreign names, other paths and methods are refused", async (context) => {
  const { daemon } = await daemonFor(context);
  await using http = await startHttpServer(daemon);
  const send = async (headers: Record<string, string>, init: RequestInit = {}, url = http.url) => {
    const answer = await fetch(url, { method: "POST", body: "{}", headers, ...init });
    return [answer.status, ((await answer.json()) as { code?: string }).code];
  };
  const origin = { origin: "https://evil.example" };
  assert.deepEqual(await send(origin), [403, "forbidden"]);
  assert.deepEqual(await send({}, {}, `${http.url}/x`), [404, "route_not_found"]);
  assert.deepEqual(await send({}, { method: "GET", body: null }), [405, "method_not_allowed"]);
  const { port } = new URL(http.url);
  const rebound = await rawPost(Number(port), "evil.example");
  assert.match(rebound, /^HTTP\/1\.1 403 /);
});

async function rawPost(port: number, host: string): Promise<string> {
  const { rawHttp } = await import("../../helpers/raw-http.ts");
  const head = ["POST /mcp HTTP/1.1", `host: ${host}`, "content-length: 2", "connection: close"];
  return await rawHttp(port, `${head.join("\r\n")}\r\n\r\n{}`);
}

test("over HTTP: with a token file, the token is asked for", async (context) => {
  const { daemon } = await daemonFor(context);
  await using tmp = await makeTmpDir("mcp");
  const file = join(tmp.path, "token");
  writeFileSync(file, "a-token-for-http-clients\n");
  await using http = await startHttpServer(daemon, [
    ...["--http", "127.0.0.1:0", "--token-file", file],
  ]);
  await assert.rejects(httpSession(http.url), /401|unauthorized/i);
  await assert.rejects(httpSession(http.url, "another-token"), /401|unauthorized/i);
  await using session = await httpSession(http.url, "a-token-for-http-clients");
  assert.match(textOf(await session.call("list_snapshots")), /"tag":"base"/);
});
