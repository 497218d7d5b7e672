import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { findProcess } from "@forkd/host/linux/proc.ts";
import { Client } from "@forkd/sdk";
import { missing } from "../../helpers/capabilities.ts";
import { DaemonProcess, startProcessWith } from "../../helpers/daemon-process.ts";
import { type FakeHost, makeFakeHost } from "../../helpers/fake-host.ts";

const skip = missing({ built: ["native/build/forkd-launch", "native/build/forkd-ram.so"] });

function environment(host: FakeHost) {
  return { env: { PATH: `${host.programs}:${process.env["PATH"]}` } };
}

/** A daemon with two sandboxes, and the pids of their VMMs. */
async function startWithTwo(context: TestContext, host: FakeHost) {
  const started = await startProcessWith(context, { dir: host.dataDir, ...environment(host) });
  const client = new Client({ url: started.url });
  const made = await client.createSandboxes({ body: { snapshot_tag: host.tag, n: 2 } });
  const pids = made.map(({ pid }) => pid ?? assert.fail());
  assert.ok(pids.every((pid) => findProcess(pid) !== undefined));
  return { ...started, pids };
}

async function drain(host: FakeHost, ...words: string[]): Promise<DaemonProcess> {
  const args = ["drain", "--data-dir", host.dataDir, ...words];
  const drained = new DaemonProcess(args, environment(host));
  await drained.ended;
  return drained;
}

async function killsIn(host: FakeHost): Promise<object[]> {
  const lines = (await readFile(join(host.dataDir, "audit.log"), "utf8")).trimEnd().split("\n");
  return lines.map((line) => JSON.parse(line)).filter(({ operation }) => operation === "kill");
}

test("a drain ends every sandbox and the daemon, and each is audited", {
  skip,
}, async (context) => {
  await using host = await makeFakeHost();
  const { daemon, pids } = await startWithTwo(context, host);
  const drained = await drain(host);
  assert.equal(await drained.ended, 0, drained.stderr.join("\n"));
  assert.equal(await daemon.ended, 0);
  assert.ok(
    pids.every((pid) => findProcess(pid) === undefined),
    "no VMM is left",
  );
  assert.equal((await killsIn(host)).length, 2);
});

test("a stop leaves sandboxes running; a drain without a daemon ends them", {
  skip,
}, async (context) => {
  await using host = await makeFakeHost();
  const { daemon, pid, pids } = await startWithTwo(context, host);
  process.kill(pid, "SIGTERM");
  assert.equal(await daemon.ended, 0);
  assert.ok(
    pids.every((each) => findProcess(each) !== undefined),
    "they run on",
  );
  const drained = await drain(host);
  assert.equal(await drained.ended, 0, drained.stderr.join("\n"));
  assert.ok(
    pids.every((each) => findProcess(each) === undefined),
    "no VMM is left",
  );
});

test("a daemon that does not answer is told of, with what to do", { skip }, async (context) => {
  await using host = await makeFakeHost();
  const { pid } = await startWithTwo(context, host);
  process.kill(pid, "SIGSTOP");
  const late = await drain(host, "--timeout", "0.2");
  assert.equal(await late.ended, 1);
  assert.match(late.stderr.join("\n"), /error: .*has not ended its sandboxes in time\nhint: /);
  process.kill(pid, "SIGCONT");
  const drained = await drain(host);
  assert.equal(await drained.ended, 0, drained.stderr.join("\n"));
});

test("a drain's own words are checked", async () => {
  const cases: readonly (readonly string[])[] = [
    ["drain", "--timeout", "0"],
    ["drain", "--timeout", "soon"],
    ["serve", "--timeout", "5"],
  ];
  for (const words of cases) {
    const refused = new DaemonProcess(words);
    assert.equal(await refused.ended, 2);
    assert.match(refused.stderr.join("\n"), /--timeout/);
  }
});
