/** The packages `forkd` and `forkd-mcp` from PyPI, unmodified, against our daemon. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:net";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { ForkdError, routes } from "@forkd/api";
import { type Baked, ensureBaked, repoRoot } from "../helpers/baked.ts";
import { skipWithout } from "../helpers/capability.ts";
import { startDaemon, type TestDaemon } from "../helpers/daemon.ts";
import { type DataDir, makeDataDir } from "../helpers/data-dir.ts";
import { eventually } from "../helpers/eventually.ts";
import { type McpSession, stdioSession, structured, textOf } from "../helpers/mcp.ts";
import { PythonError, PythonSession, pythonClients } from "../helpers/python-clients.ts";

const needs = skipWithout("root", "qemu", "guest-agent");
const clients = needs === false ? await pythonClients() : { skip: needs };
const skip = "skip" in clients ? clients.skip : false;
const found = () => ("skip" in clients ? assert.fail(clients.skip) : clients);
const withoutBranch = "branchSandbox" in routes ? false : "the daemon cannot branch yet";

/** A port that nobody has now; another program may take it before it is used. */
async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  server.close();
  await once(server, "close");
  return typeof address === "object" ? (address?.port ?? 0) : 0;
}

/** What upstream's clients read of the daemon's answers. */
interface SandboxDict {
  readonly id: string;
  readonly snapshot_tag: string;
  readonly netns: string | null;
  readonly guest_addr: string;
  readonly pid: number | null;
}

describe("upstream's Python clients", { skip }, () => {
  let baked: Baked;
  let data: DataDir;
  let daemon: TestDaemon;

  before(async () => {
    baked = await ensureBaked();
    data = await makeDataDir("python", baked);
    daemon = await startDaemon(data.path);
  });
  after(async () => {
    await daemon?.killAll();
    await data?.assertNothingLeft();
    await data?.[Symbol.asyncDispose]();
  });

  describe("forkd.Controller", () => {
    let python: PythonSession;
    let child: SandboxDict;

    before(async () => {
      python = new PythonSession(found(), { FORKD_URL: daemon.url, FORKD_TOKEN: daemon.token });
      await python.make("controller", "Controller");
      [child] = (await call("spawn_sandboxes", [baked.tag])) as [SandboxDict];
    });
    after(() => python?.[Symbol.asyncDispose]());

    const call = (method: string, args: readonly unknown[] = [], kwargs: object = {}) =>
      python.call(`controller.${method}`, args, kwargs);

    const refused = (status: number, code: string, text: RegExp) => (error: unknown) => {
      assert.ok(error instanceof PythonError, String(error));
      assert.deepEqual([error.raised, error.status], ["ControllerError", status]);
      const body = error.body as { code: string; error: string };
      assert.equal(body.code, code);
      assert.match(body.error, text);
      return true;
    };

    test("list_snapshots has one entry a tag", async () => {
      const listed = (await call("list_snapshots")) as { tag: string; status: string }[];
      const entries = listed.filter(({ tag }) => tag === baked.tag);
      assert.deepEqual(
        entries.map(({ status }) => status),
        ["ready"],
      );
    });

    test("spawn_sandboxes: nullable fields are there and null", async () => {
      assert.equal(child.snapshot_tag, baked.tag);
      assert.equal(child.netns, null);
      assert.equal(child.guest_addr, "10.42.0.2:8888");
      assert.ok((child.pid ?? 0) > 0);
    });

    test("spawn_sandboxes with every option that a guest without a network can have", async () => {
      const options = { n: 2, prewarm: true, live_fork: true, hugepages: true };
      const spawned = (await call("spawn_sandboxes", [baked.tag], options)) as SandboxDict[];
      assert.equal(spawned.length, 2);
      for (const { id } of spawned) await call("kill_sandbox", [id]);
    });

    test("list_sandboxes, get_sandbox", async () => {
      const listed = (await call("list_sandboxes")) as SandboxDict[];
      assert.deepEqual(
        listed.map(({ id }) => id),
        [child.id],
      );
      assert.deepEqual(await call("get_sandbox", [child.id]), listed[0]);
    });

    test("exec_command", async () => {
      const script = "echo out; echo err >&2; exit 3";
      const ran = (await call("exec_command", [child.id, ["sh", "-c", script]])) as object;
      const { stdout, stderr, exit_code } = ran as Record<string, unknown>;
      assert.deepEqual([stdout, stderr, exit_code], ["out\n", "err\n", 3]);
      const slow = await call("exec_command", [child.id, ["sleep", "60"]], { timeout_secs: 1 });
      assert.equal((slow as { exit_code: number }).exit_code, -9);
    });

    test("eval_code", async () => {
      const sum = (await call("eval_code", [child.id, "numpy.zeros(2).tolist()"])) as object;
      const { result, error, exit_code } = sum as Record<string, unknown>;
      assert.deepEqual([result, error, exit_code], ["[0.0, 0.0]", null, 0]);
      const failed = (await call("eval_code", [child.id, "1/0"])) as Record<string, unknown>;
      assert.match(String(failed["error"]), /^ZeroDivisionError: /);
      assert.equal(failed["exit_code"], 1);
    });

    test("ping_sandbox, which sends a POST without a body", async () => {
      const pong = (await call("ping_sandbox", [child.id])) as Record<string, unknown>;
      assert.deepEqual([pong["pong"], pong["warmup_ready"]], [true, true]);
      assert.match(String(pong["numpy_version"]), /^\d/);
    });

    test("errors have upstream's statuses, and texts that name the thing", async () => {
      const none = refused(404, "sandbox_not_found", /sb-none.* not found$/);
      await assert.rejects(call("get_sandbox", ["sb-none"]), none);
      await assert.rejects(call("kill_sandbox", ["sb-none"]), none);
      await assert.rejects(call("exec_command", ["sb-none", ["ls"]]), none);
      await assert.rejects(call("eval_code", ["sb-none", "1"]), none);
      await assert.rejects(call("ping_sandbox", ["sb-none"]), none);
      const noTag = refused(404, "snapshot_not_found", /no-such-tag.* not found$/);
      await assert.rejects(call("spawn_sandboxes", ["no-such-tag"]), noTag);
      await assert.rejects(call("delete_snapshot", ["no-such-tag"]), noTag);
      const count = refused(400, "invalid_count", /\bn\b/);
      await assert.rejects(call("spawn_sandboxes", [baked.tag], { n: 0 }), count);
      await assert.rejects(call("spawn_sandboxes", [baked.tag], { n: 1001 }), count);
      const noWords = refused(400, "bad_request", /./);
      await assert.rejects(call("exec_command", [child.id, []]), noWords);
      await assert.rejects(call("spawn_sandboxes", ["-x"]), refused(400, "invalid_tag", /./));
    });

    test("a wrong token is 401, nobody answering is an error of its own", async () => {
      await python.make("stranger", "Controller", { base_url: daemon.url, token: "wrong" });
      const unauthorized = refused(401, "unauthorized", /^invalid bearer token$/);
      await assert.rejects(python.call("stranger.list_snapshots"), unauthorized);
      await python.make("anonymous", "Controller", { base_url: daemon.url, token: "" });
      const missing = refused(401, "unauthorized", /^missing bearer token$/);
      await assert.rejects(python.call("anonymous.list_sandboxes"), missing);
      await python.make("lost", "Controller", { base_url: "http://127.0.0.1:9/" });
      await assert.rejects(python.call("lost.list_snapshots"), { name: "URLError" });
    });

    test("branch_sandbox in every mode, and grandchildren", { skip: withoutBranch }, async () => {
      await call("eval_code", [child.id, "kept = 41"]);
      const modes = [{ diff: true }, { mode: "diff" }, { mode: "full" }, { mode: "live" }];
      for (const [index, options] of [{}, { measure_diff: true }, ...modes].entries()) {
        const tag = `python-branch-${index}`;
        const made = await call("branch_sandbox", [child.id], { tag, ...options });
        const branch = made as Record<string, unknown>;
        assert.deepEqual(
          [branch["tag"], branch["branched_from"], branch["status"]],
          [tag, child.id, "ready"],
        );
        assert.ok(Number(branch["pause_ms"]) >= 0);
        const [grandchild] = (await call("spawn_sandboxes", [tag])) as [SandboxDict];
        const answer = (await call("eval_code", [grandchild.id, "kept + 1"])) as object;
        assert.equal((answer as Record<string, unknown>)["result"], "42", JSON.stringify(options));
        await call("kill_sandbox", [grandchild.id]);
        await call("delete_snapshot", [tag]);
      }
    });

    test("branch_sandbox(wait=False) is seen to get ready", { skip: withoutBranch }, async () => {
      const options = { tag: "python-live", mode: "live", wait: false };
      const branch = await call("branch_sandbox", [child.id], options);
      assert.equal((branch as { tag: string }).tag, "python-live");
      await eventually(
        async () => {
          const listed = (await call("list_snapshots")) as { tag: string; status: string }[];
          const entries = listed.filter(({ tag }) => tag === "python-live");
          assert.deepEqual(
            entries.map(({ status }) => status),
            ["ready"],
          );
        },
        { timeoutMs: 60_000, everyMs: 100 },
      );
      await call("delete_snapshot", ["python-live"]);
    });

    test("branch_sandbox refuses what upstream refuses", { skip: withoutBranch }, async () => {
      const branch = (options: object) => call("branch_sandbox", [child.id], options);
      const bad = refused(400, "bad_request", /./);
      await assert.rejects(branch({ diff: true, measure_diff: true }), bad);
      await assert.rejects(branch({ wait: false }), bad);
      await assert.rejects(branch({ tag: "../x" }), refused(400, "invalid_tag", /./));
      await assert.rejects(branch({ tag: baked.tag }), refused(409, "snapshot_exists", /./));
      const none = refused(404, "sandbox_not_found", /not found$/);
      await assert.rejects(call("branch_sandbox", ["sb-none"]), none);
    });

    test("kill_sandbox ends it", async () => {
      assert.equal(await call("kill_sandbox", [child.id]), null);
      assert.deepEqual(await call("list_sandboxes"), []);
    });
  });

  describe("forkd.Sandbox, which runs `forkd fork`", () => {
    /** What the package reads when it is imported, and what our command does. */
    const environment = () => ({
      PATH: `${join(repoRoot, "bin")}:${process.env["PATH"]}`,
      FORKD_TAG: baked.tag,
      FORKD_DATA_DIR: data.path,
    });
    /** A network of its own, whose loopback interface has upstream's address of a guest. */
    const ownNetwork = [
      ...["unshare", "--net", "sh", "-euc"],
      'ip link set lo up; ip address add 10.42.0.2/32 dev lo; exec "$@"',
      "sh",
    ];

    async function usesSandbox(python: PythonSession): Promise<void> {
      await python.make("sandbox", "Sandbox");
      const call = (method: string, args: readonly unknown[] = [], kwargs: object = {}) =>
        python.call(`sandbox.${method}`, args, kwargs);
      const pong = (await call("ping")) as Record<string, unknown>;
      assert.deepEqual([pong["pong"], pong["agent_lang"]], [true, "python"]);
      const shell = await call("commands.run", ["echo out; echo err >&2; exit 3"]);
      assert.deepEqual(shell, { stdout: "out\n", stderr: "err\n", exit_code: 3 });
      const words = await call("commands.run", [["echo", "$HOME"]]);
      assert.deepEqual(words, { stdout: "$HOME\n", stderr: "", exit_code: 0 });
      const late = await call("commands.run", ["sleep 60"], { timeout: 1 });
      assert.equal((late as { exit_code: number }).exit_code, -9);
      const missing = (await call("commands.run", [["/no/such"]])) as Record<string, unknown>;
      assert.equal(missing["exit_code"], 1);
      assert.match(String(missing["stderr"]), /\/no\/such/);
      assert.equal(await call("eval", ["numpy.zeros(2).tolist()"]), "[0.0, 0.0]");
      await assert.rejects(call("eval", ["1/0"]), {
        name: "RuntimeError",
        message: /forkd eval: ZeroDivisionError/,
      });
      await call("kill");
      await call("kill");
      await assert.rejects(call("ping"), { name: "ConnectionRefusedError" });
    }

    test("on the address that FORKD_TARGET names, without any network", async () => {
      const target = `127.0.0.1:${await freePort()}`;
      await using python = new PythonSession(found(), { ...environment(), FORKD_TARGET: target });
      await usesSandbox(python);
    });

    test("on upstream's address, where the loopback interface has it", async () => {
      await using python = new PythonSession(found(), environment(), ownNetwork);
      await usesSandbox(python);
    });

    test("an unknown tag is told with the command's own words", async () => {
      const target = `127.0.0.1:${await freePort()}`;
      const env = { ...environment(), FORKD_TAG: "no-such-tag", FORKD_TARGET: target };
      await using python = new PythonSession(found(), env);
      await assert.rejects(python.make("sandbox", "Sandbox"), {
        name: "RuntimeError",
        message: /exited with code 1:\n[\s\S]*^error: .*no-such-tag/m,
      });
    });
  });

  describe("forkd-mcp", () => {
    let mcp: McpSession;
    let child: SandboxDict;

    before(async () => {
      mcp = await stdioSession(daemon, { command: found().mcpServer });
      const spawned = await tool("spawn_sandboxes", { snapshot_tag: baked.tag });
      [child] = spawned["result"] as [SandboxDict];
    });
    after(() => mcp?.[Symbol.asyncDispose]());

    const tool = async (name: string, args: Record<string, unknown> = {}) =>
      structured(await mcp.call(name, args));
    const own = (args: Record<string, unknown> = {}) => ({ sandbox_id: child.id, ...args });
    const fails = async (name: string, args: Record<string, unknown>, reason: RegExp) => {
      const result = await mcp.call(name, args);
      assert.equal(result.isError, true, name);
      assert.match(textOf(result), reason);
    };

    test("has eleven tools, and its spawn works with its own defaults", async () => {
      assert.equal((await mcp.client.listTools()).tools.length, 11);
      assert.match(child.id, /^sb-/);
    });

    test("lists and gets", async () => {
      const tags = (await tool("list_snapshots"))["result"] as { tag: string }[];
      assert.ok(tags.some(({ tag }) => tag === baked.tag));
      const ids = (await tool("list_sandboxes"))["result"] as SandboxDict[];
      assert.deepEqual(
        ids.map(({ id }) => id),
        [child.id],
      );
      assert.equal((await tool("get_sandbox", own()))["id"], child.id);
    });

    test("runs, evaluates, pings", async () => {
      const ran = await tool("exec_command", own({ args: ["echo", "hi"] }));
      assert.deepEqual([ran["stdout"], ran["exit_code"]], ["hi\n", 0]);
      assert.equal((await tool("eval_code", own({ code: "6 * 7" })))["result"], "42");
      assert.equal((await tool("ping_sandbox", own()))["pong"], true);
    });

    test("waits for a text", async () => {
      const script = "(sleep 0.3; echo READY > /tmp/log) >/dev/null 2>&1 &";
      await tool("exec_command", own({ args: ["sh", "-c", script] }));
      const waiting = own({ path: "/tmp/log", marker: "READY", timeout_secs: 30 });
      const waited = await tool("wait_for_text", waiting);
      assert.deepEqual([waited["found"], waited["last_excerpt"]], [true, "READY\n"]);
      const late = own({ path: "/tmp/none", marker: "x", timeout_secs: 0.3 });
      assert.equal((await tool("wait_for_text", late))["found"], false);
    });

    test("branches", { skip: withoutBranch }, async () => {
      for (const options of [{}, { diff: true }, { mode: "live" }]) {
        const made = await tool("branch_sandbox", own({ tag: "mcp-branch", ...options }));
        assert.deepEqual([made["tag"], made["branched_from"]], ["mcp-branch", child.id]);
        await daemon.client.deleteSnapshot({ params: { tag: "mcp-branch" } });
      }
      await fails("branch_sandbox", own({ diff: true, measure_diff: true }), /400/);
    });

    test("create_snapshot says which file is missing", async () => {
      const paths = { tag: "x", kernel: "/no/kernel", rootfs: "/no/rootfs", boot_wait_secs: 0 };
      await fails("create_snapshot", paths, /Client error '4\d\d /);
    });

    test("a refused call is a tool's error", async () => {
      for (const name of ["get_sandbox", "kill_sandbox", "ping_sandbox"]) {
        await fails(name, { sandbox_id: "sb-none" }, /404 Not Found/);
      }
      await fails("spawn_sandboxes", { snapshot_tag: "no-such-tag" }, /404 Not Found/);
      await fails("spawn_sandboxes", { snapshot_tag: baked.tag, n: 0 }, /400 Bad Request/);
      await fails("exec_command", { sandbox_id: "sb-none", args: ["ls"] }, /404 Not Found/);
      await fails("eval_code", { sandbox_id: "sb-none", code: "1" }, /404 Not Found/);
    });

    test("kills", async () => {
      assert.deepEqual(await tool("kill_sandbox", own()), { id: child.id, killed: true });
      const gone = daemon.client.pingSandbox({ params: { id: child.id } });
      await assert.rejects(gone, (error: unknown) => error instanceof ForkdError);
    });
  });
});
