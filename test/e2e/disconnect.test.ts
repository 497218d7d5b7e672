import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { ensureBaked } from "../helpers/baked.ts";
import { skipWithout } from "../helpers/capability.ts";
import { startDaemon, type TestDaemon } from "../helpers/daemon.ts";
import { type DataDir, makeDataDir } from "../helpers/data-dir.ts";
import { eventually } from "../helpers/eventually.ts";

/** Longer than any wait of this file: what is not cancelled is still there. */
const foreverSecs = 600;

describe("a client that goes away", {
  skip: skipWithout("root", "qemu", "guest-agent"),
  timeout: 300_000,
}, () => {
  let data: DataDir;
  let daemon: TestDaemon;
  let tag: string;
  let id: string;
  const client = () => daemon.client;

  before(async () => {
    const baked = await ensureBaked();
    tag = baked.tag;
    data = await makeDataDir("disconnect", baked);
    daemon = await startDaemon(data.path);
    const [child] = await client().createSandboxes({ body: { snapshot_tag: tag } });
    id = child?.id ?? assert.fail();
  });
  after(async () => {
    await daemon?.killAll();
    await data?.assertNothingLeft();
    await data?.[Symbol.asyncDispose]();
  });

  const commands = async (): Promise<string> => {
    const args = ["/bin/sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"];
    return (await client().execSandbox({ params: { id }, body: { args } })).stdout;
  };

  test("its command ends with all that it started", async () => {
    const abort = new AbortController();
    const args = ["/bin/sh", "-c", "sleep 4321 & sleep 4321"];
    const body = { args, timeout_secs: foreverSecs };
    const gone = client().execSandbox({ params: { id }, body, signal: abort.signal });
    gone.catch(() => undefined);
    await eventually(async () => assert.match(await commands(), /sleep 4321/));
    abort.abort();
    await eventually(async () => assert.doesNotMatch(await commands(), /sleep 4321/));
  });

  test("its eval is interrupted, and the interpreter keeps what it knows", async () => {
    const evaluate = (code: string, signal?: AbortSignal) =>
      client().evalSandbox({
        params: { id },
        body: { code, timeout_secs: foreverSecs },
        ...(signal && { signal }),
      });
    await evaluate("kept = 7; import pathlib; mark = pathlib.Path('/run/mark')");
    const abort = new AbortController();
    const running = evaluate("mark.touch()\nwhile True: pass", abort.signal);
    const waiting = evaluate("kept = 8", abort.signal);
    for (const gone of [running, waiting]) gone.catch(() => undefined);
    await eventually(async () => {
      const args = ["/bin/ls", "/run/mark"];
      const { exit_code } = await client().execSandbox({ params: { id }, body: { args } });
      assert.equal(exit_code, 0);
    });
    abort.abort();
    assert.equal((await evaluate("kept")).result, "7");
  });

  test("its spawn is undone", async () => {
    const abort = new AbortController();
    const body = { snapshot_tag: tag, n: 30 };
    const gone = client().createSandboxes({ body, signal: abort.signal });
    gone.catch(() => undefined);
    await eventually(async () => {
      const states = (await client().listSandboxes()).map(({ state }) => state);
      assert.ok(states.filter((state) => state === "running").length > 1);
    });
    abort.abort();
    await eventually(
      async () => {
        const ids = (await client().listSandboxes()).map((sandbox) => sandbox.id);
        assert.deepEqual(ids, [id]);
      },
      { timeoutMs: 30_000 },
    );
    const ended = (await client().listSandboxes({ query: { ended: true } })).slice(1);
    assert.ok(ended.length > 0 && ended.length < body.n, `${ended.length} were begun`);
    assert.ok(ended.every(({ end }) => end?.reason === "spawn_failed"));
  });
});
