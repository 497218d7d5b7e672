/** The official MCP client before `forkd-mcp`, over both transports, with real sandboxes behind. */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { type Baked, ensureBaked } from "../helpers/baked.ts";
import { skipWithout } from "../helpers/capability.ts";
import { startDaemon, type TestDaemon } from "../helpers/daemon.ts";
import { type DataDir, makeDataDir } from "../helpers/data-dir.ts";
import {
  httpSession,
  type McpHttpServer,
  type McpSession,
  startHttpServer,
  stdioSession,
  structured,
  textOf,
} from "../helpers/mcp.ts";

interface Listed {
  readonly id: string;
}

describe("forkd-mcp", { skip: skipWithout("root", "qemu", "guest-agent") }, () => {
  let baked: Baked;
  let data: DataDir;
  let daemon: TestDaemon;
  let http: McpHttpServer;

  before(async () => {
    baked = await ensureBaked();
    data = await makeDataDir("mcp", baked);
    daemon = await startDaemon(data.path);
    http = await startHttpServer(daemon);
  });
  after(async () => {
    await http?.[Symbol.asyncDispose]();
    await daemon?.killAll();
    await data?.assertNothingLeft();
    await data?.[Symbol.asyncDispose]();
  });

  const doors: Record<string, () => Promise<McpSession>> = {
    stdio: () => stdioSession(daemon),
    "streamable HTTP": () => httpSession(http.url),
  };
  for (const [name, open] of Object.entries(doors)) {
    describe(`over ${name}`, () => suite(name, open));
  }

  function suite(name: string, open: () => Promise<McpSession>): void {
    let mcp: McpSession;
    let sandbox: string;
    const called = new Set<string>();
    const ask = (tool: string, args: Record<string, unknown> = {}) => {
      called.add(tool);
      return mcp.call(tool, args);
    };
    const tool = async (tool: string, args: Record<string, unknown> = {}) =>
      structured(await ask(tool, args));
    const own = (args: Record<string, unknown> = {}) => ({ sandbox_id: sandbox, ...args });
    const tag = `mcp-${name.replaceAll(/\W/g, "-")}`;

    before(async () => {
      mcp = await open();
      // From here on the client checks every result against its tool's schema.
      await mcp.client.listTools();
      const { result } = await tool("spawn_sandboxes", { snapshot_tag: baked.tag });
      sandbox = (result as Listed[])[0]?.id ?? assert.fail();
    });
    after(() => mcp?.[Symbol.asyncDispose]());

    test("lists, gets, pings", async () => {
      const snapshots = (await tool("list_snapshots"))["result"] as { tag: string }[];
      assert.ok(snapshots.some((snapshot) => snapshot.tag === baked.tag));
      const sandboxes = (await tool("list_sandboxes"))["result"] as Listed[];
      assert.ok(sandboxes.some(({ id }) => id === sandbox));
      assert.equal((await tool("get_sandbox", own()))["id"], sandbox);
      assert.equal((await tool("ping_sandbox", own()))["pong"], true);
      const { text } = await tool("get_sandbox_logs", own({ lines: 1 }));
      assert.ok(String(text).split("\n").length <= 2, String(text));
    });

    test("runs a command, evaluates code", async () => {
      const ran = await tool("exec_command", own({ args: ["sh", "-c", "echo hi; exit 3"] }));
      assert.deepEqual([ran["stdout"], ran["exit_code"]], ["hi\n", 3]);
      assert.equal((await tool("eval_code", own({ code: "numpy.zeros(2).sum()" })))["error"], null);
      const failed = await tool("eval_code", own({ code: "1/0" }));
      assert.match(String(failed["error"]), /^ZeroDivisionError/);
      const missing = await ask("exec_command", own({ args: ["/no/such/program"] }));
      assert.match(textOf(missing), /^error exec_failed: .*\/no\/such\/program/);
    });

    test("waits for a text", async () => {
      const script = "(sleep 0.2; echo READY > /tmp/log) >/dev/null 2>&1 &";
      await tool("exec_command", own({ args: ["sh", "-c", script] }));
      const waited = await tool("wait_for_text", own({ path: "/tmp/log", marker: "READY" }));
      assert.deepEqual([waited["found"], waited["last_excerpt"]], [true, "READY\n"]);
      const absent = own({ path: "/tmp/none", marker: "x", timeout_secs: 0.2 });
      const late = await tool("wait_for_text", absent);
      assert.deepEqual([late["found"], late["last_excerpt"]], [false, ""]);
    });

    test("works on files", async () => {
      const done = { id: sandbox, done: true };
      const dir = own({ path: "/tmp/mcp/dir", parents: true });
      assert.deepEqual(await tool("make_directory", dir), done);
      const stat = await tool("stat_file", own({ path: "/tmp/mcp/dir" }));
      assert.deepEqual([stat["type"], stat["name"]], ["directory", "dir"]);
      const names = own({ path: "/tmp/mcp/dir", new_path: "/tmp/mcp/other" });
      assert.deepEqual(await tool("rename_file", names), done);
      const { entries } = await tool("list_files", own({ path: "/tmp/mcp" }));
      assert.deepEqual(
        (entries as { name: string }[]).map(({ name }) => name),
        ["other"],
      );
      const tree = own({ path: "/tmp/mcp", recursive: true });
      assert.deepEqual(await tool("remove_file", tree), done);
      const gone = await ask("stat_file", own({ path: "/tmp/mcp" }));
      assert.match(textOf(gone), /^error file_not_found: /);
    });

    test("reads and writes files", async () => {
      const path = "/tmp/mcp-file";
      const words = "warm \u20AC ".repeat(1000);
      const written = await tool("write_file", own({ path, content: words, mode: "0755" }));
      assert.deepEqual([written["mode"], written["size_bytes"]], ["0755", words.length + 2000]);
      const read = await tool("read_file", own({ path, offset: 9, length: 18 }));
      assert.deepEqual([read["content"], read["next_offset"]], ["warm \u20AC ".repeat(2), 27]);
      const bytes = Buffer.alloc(256 * 1024, Buffer.from([0, 255, 7]));
      const base64 = { path, content: bytes.toString("base64"), encoding: "base64" };
      await tool("write_file", own(base64));
      const whole = own({ path, length: bytes.length, encoding: "base64" });
      const again = await tool("read_file", whole);
      assert.deepEqual([again["content"] === base64.content, again["next_offset"]], [true, null]);
      await tool("write_file", own({ path, content: "" }));
      assert.equal((await tool("read_file", own({ path })))["content"], "");
      const kernel = await tool("read_file", own({ path: "/proc/version", offset: 6, length: 7 }));
      assert.deepEqual([kernel["content"], kernel["next_offset"]], ["version", 13]);
    });

    test("says what to do about a file that cannot be read or written", async () => {
      const path = "/tmp/mcp-file";
      const refusals: [string, Record<string, unknown>, RegExp][] = [
        ["read_file", { path: "/tmp/none" }, /^error file_not_found: .*\nhint: call list_files/],
        ["read_file", { path: "/tmp" }, /^error is_a_directory: .*\nhint: call list_files/],
        ["read_file", { path: "/dev/null" }, /^error not_a_file: .*\nhint: use exec_command/],
        ["read_file", { path, offset: 1 }, /^error range_not_satisfiable: .*\nhint: .*stat_file/],
        ["write_file", { path, content: "", exclusive: true }, /^error file_exists: .*\nhint: /],
      ];
      for (const [name, args, reason] of refusals) {
        assert.match(textOf(await ask(name, own(args))), reason);
      }
    });

    test("wait_for_text runs nothing of what is in the path", async () => {
      const paths = [
        "/tmp/$(touch /tmp/run1)",
        "/tmp/x; touch /tmp/run2",
        "/tmp/`touch /tmp/run3`",
      ];
      for (const path of paths) {
        await tool("wait_for_text", own({ path, marker: "x", timeout_secs: 0.05 }));
      }
      const { stdout } = await tool("exec_command", own({ args: ["ls", "/tmp"] }));
      assert.doesNotMatch(String(stdout), /run\d/);
    });

    test("branches a sandbox, forks the branch, says what it is", async () => {
      await tool("eval_code", own({ code: "kept = 41" }));
      const branch = await tool("branch_sandbox", own({ tag, mode: "diff" }));
      assert.deepEqual([branch["tag"], branch["status"]], [tag, "ready"]);
      const { result } = await tool("spawn_sandboxes", { snapshot_tag: tag, n: 2 });
      for (const { id } of result as Listed[]) {
        const value = await tool("eval_code", { sandbox_id: id, code: "kept + 1" });
        assert.equal(value["result"], "42");
        assert.deepEqual(await tool("kill_sandbox", { sandbox_id: id }), { id, killed: true });
      }
    });

    test("shows and compacts the chain of a branch", async () => {
      const info = await tool("get_snapshot_info", { tag });
      assert.deepEqual([info["ancestors"], info["chain_depth"]], [[baked.tag], 1]);
      const compact = await tool("compact_snapshot", { tag, to: `${tag}-flat` });
      assert.equal(compact["tag"], `${tag}-flat`);
      const { nodes } = await tool("get_lineage");
      const names = (nodes as { name: string }[]).map((node) => node.name);
      for (const name of [baked.tag, tag, `${tag}-flat`, sandbox]) assert.ok(names.includes(name));
      const used = await ask("delete_snapshot", { tag: baked.tag });
      assert.match(textOf(used), /^error snapshot_in_use: .*\nhint: .*cascade/);
      await tool("delete_snapshot", { tag: `${tag}-flat` });
    });

    test("create_snapshot says which file is missing", async () => {
      const paths = { kernel: "/no/kernel", rootfs: "/no/rootfs", boot_wait_secs: 0 };
      const refused = await ask("create_snapshot", { tag: `${tag}-made`, ...paths });
      assert.match(textOf(refused), /^error \w+: .*\/no\/(kernel|rootfs)/);
    });

    test("resources show what there is", async () => {
      const { resources } = await mcp.client.listResources();
      const uris = resources.map(({ uri }) => uri);
      assert.ok(uris.includes(`forkd://sandboxes/${sandbox}`), String(uris));
      const read = await mcp.client.readResource({ uri: `forkd://snapshots/${baked.tag}` });
      assert.match(JSON.stringify(read.contents), new RegExp(baked.tag));
    });

    test("kills, deletes, and tells what is not there", async () => {
      assert.deepEqual(await tool("kill_sandbox", own()), { id: sandbox, killed: true });
      const gone = await ask("exec_command", own({ args: ["true"] }));
      assert.match(textOf(gone), /^error sandbox_(not_found|ended): .*\nhint: .*_sandbox/);
      assert.deepEqual(await tool("delete_snapshot", { tag }), { tag, deleted: true });
      const again = await ask("delete_snapshot", { tag });
      assert.match(textOf(again), /^error snapshot_not_found: .*\nhint: call list_snapshots/);
    });

    test("every other tool answers, or refuses what is not there", async () => {
      const { tools } = await mcp.client.listTools();
      for (const { name, inputSchema } of tools.filter((each) => !called.has(each.name))) {
        const names = inputSchema.required ?? [];
        const args = Object.fromEntries(names.map((argument) => [argument, `no-such-${argument}`]));
        const result = await ask(name, args);
        if (names.length === 0) structured(result);
        else assert.match(textOf(result), /^error (\w+_not_found|invalid_id): .*\nhint: /, name);
      }
      assert.deepEqual(
        tools.map((each) => each.name).filter((each) => !called.has(each)),
        [],
      );
    });
  }
});
