import assert from "node:assert/strict";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { type ErrorCode, ForkdError, type SandboxInfo } from "@forkd/api";
import { missing } from "../../helpers/capabilities.ts";
import { startDaemon, type TestDaemon } from "../../helpers/daemon.ts";
import { eventually } from "../../helpers/eventually.ts";
import { type FakeHost, makeFakeHost } from "../../helpers/fake-host.ts";
import { type Consequence, falseIdentities, misdeeds } from "../../helpers/misdeeds.ts";

const needs = { built: ["native/build/forkd-launch", "native/build/forkd-ram.so"] };
const rssMibMax = 700;

/** The codes that a call may end with; an answer that came before the misdeed counts. */
const expected: Readonly<Record<Consequence, readonly (ErrorCode | "answered")[]>> = {
  cut: ["agent_unavailable", "answered"],
  refused: ["agent_unavailable"],
  late: ["deadline_exceeded"],
};

describe("a daemon with hostile guests", { skip: missing(needs), timeout: 240_000 }, () => {
  let host: FakeHost;
  let daemon: TestDaemon;
  let neighbour: SandboxInfo;
  const call = () => daemon.client;
  const spawn = (n: number) => call().createSandboxes({ body: { snapshot_tag: host.tag, n } });

  before(async () => {
    host = await makeFakeHost();
    const flags = ["--identity-timeout-secs", "3"];
    daemon = await startDaemon(host.dataDir, { flags, programs: host.programs });
    [neighbour = assert.fail()] = await spawn(1);
  });
  after(async () => {
    await daemon?.killAll();
    await host?.[Symbol.asyncDispose]();
  });

  const exec = (id: string) =>
    call().execSandbox({ params: { id }, body: { args: ["echo"], timeout_secs: 0.5 } });

  async function codeOf(work: Promise<unknown>): Promise<ErrorCode | "answered"> {
    try {
      await work;
      return "answered";
    } catch (error) {
      assert.ok(error instanceof ForkdError, String(error));
      return error.code;
    }
  }

  /** Others are served while `work` goes on. */
  async function meanwhile<T>(work: Promise<T>): Promise<T> {
    let isOver = false;
    const done = work.finally(() => {
      isOver = true;
    });
    done.catch(() => undefined);
    while (!isOver) {
      assert.deepEqual(await call().health(), { ok: true });
      assert.equal((await exec(neighbour.id)).stdout, '["echo"]\n');
    }
    return await done;
  }

  test("a guest with a false identity is never opened", async () => {
    const names = Object.keys(falseIdentities);
    await host.plan(names);
    const codes = await meanwhile(Promise.all(names.map(() => codeOf(spawn(1)))));
    for (const code of codes) assert.equal(code, "identity_failed");
    assert.deepEqual(
      (await call().listSandboxes()).map(({ id }) => id),
      [neighbour.id],
    );
    const ended = await call().listSandboxes({ query: { ended: true } });
    const reasons = ended.flatMap(({ end }) => (end === null ? [] : [end.reason]));
    assert.equal(reasons.length, names.length);
    for (const reason of reasons) assert.match(reason, /^identity_(failed|timeout)$/);
  });

  test("whatever a guest answers, its call ends, and the others are served", async () => {
    const names = Object.keys(misdeeds);
    await host.plan(names);
    const hostile = await meanwhile(spawn(names.length));
    const codes = await meanwhile(
      Promise.all(
        hostile.map(async ({ id }) => {
          const name = await host.misdeedOf(id);
          return { id, name, code: await codeOf(exec(id)) };
        }),
      ),
    );
    assert.deepEqual(codes.map(({ name }) => name).sort(), names.sort());
    for (const { name, code } of codes) {
      const { consequence } = misdeeds[name] ?? assert.fail(name);
      assert.ok(expected[consequence].includes(code), `${name}: ${code}`);
    }
  });

  test("a guest that breaks its sessions is ended; one that answers badly may try again", async () => {
    const live = (await call().listSandboxes()).filter(({ id }) => id !== neighbour.id);
    assert.equal(live.length, Object.keys(misdeeds).length);
    const names = new Map<string, string>();
    for (const { id } of live) names.set(id, await host.misdeedOf(id));
    const of = (consequence: Consequence) =>
      [...names].filter(([, name]) => misdeeds[name]?.consequence === consequence);
    for (let again = 0; again < 2; again += 1) {
      await meanwhile(Promise.all(of("cut").map(([id]) => codeOf(exec(id)))));
    }
    for (const [id, name] of of("cut")) {
      await eventually(async () => {
        const { end } = await call().getSandbox({ params: { id } });
        assert.equal(end?.reason, "agent_failed", name);
      });
      await assert.rejects(exec(id), { code: "sandbox_ended" });
    }
    for (const [id] of of("refused")) {
      assert.equal((await call().pingSandbox({ params: { id } })).pong, true);
    }
  });

  test("the daemon has not grown, and leaves nothing behind", async () => {
    const rss = /^process_resident_memory_bytes (\d+)$/m.exec(await call().metrics())?.[1];
    const mib = Number(rss) / 1024 / 1024;
    assert.ok(mib < rssMibMax, `it takes ${mib} MiB`);
    assert.equal((await exec(neighbour.id)).exit_code, 0);
    const ids = (await call().listSandboxes()).map(({ id }) => id);
    await Promise.all(ids.map((id) => call().deleteSandbox({ params: { id } })));
    assert.deepEqual(await readdir(join(host.dataDir, "work")), []);
    assert.equal(daemon.process.exitCode, null);
  });
});
