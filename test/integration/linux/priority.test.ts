import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { getPriority } from "node:os";
import { text } from "node:stream/consumers";
import { describe, test } from "node:test";
import { findProcess } from "@forkd/host/linux/proc.ts";
import { repoRoot } from "../../helpers/baked.ts";
import { missing } from "../../helpers/capabilities.ts";
import { skipWithout } from "../../helpers/capability.ts";
import { startProcess } from "../../helpers/daemon-process.ts";
import { makeTmpDir } from "../../helpers/tmp.ts";

const hasSessions = existsSync("/proc/self/autogroup");

/** Raises itself, then tells how it, a thread of it and programs that it starts stand. */
const program = `
  import { readdirSync, readFileSync } from "node:fs";
  import { Worker } from "node:worker_threads";
  import { goFirst } from "@forkd/host/linux/priority.ts";
  import { run } from "@forkd/host/lib/exec.ts";
  const standing = await goFirst();
  const own = await run(["/bin/sh", "-c", "nice; cat /proc/self/autogroup || true"]);
  const before = new Set(readdirSync("/proc/self/task"));
  const worker = new Worker("setInterval(() => undefined, 1000)", { eval: true });
  await new Promise((resolve) => worker.once("online", resolve));
  const threads = readdirSync("/proc/self/task").filter((id) => !before.has(id));
  const niceOf = (id) => Number(
    readFileSync("/proc/self/task/" + id + "/stat", "utf8").split(") ")[1].split(" ")[16]);
  console.log(JSON.stringify({ standing, child: own.stdout, threads: threads.map(niceOf) }));
  process.exit();
`;

async function tell(before: readonly string[]): Promise<{
  standing: { nice: number; session: boolean; reason: string | null };
  child: string;
  threads: number[];
}> {
  const flags = ["--conditions=forkd-source", "--input-type=module", "--eval", program];
  const [first = "", ...args] = [...before, process.execPath, ...flags];
  const child = spawn(first, args, {
    cwd: repoRoot,
    detached: true,
    stdio: ["ignore", "pipe", "inherit"],
  });
  return JSON.parse(await text(child.stdout));
}

function whyNotRaised(): string | false {
  if (getPriority() !== 0) return "needs a run that was started with nice 0";
  return missing({ capabilities: ["sys_nice"] });
}

describe("the priority of a daemon", { skip: skipWithout("root") || whyNotRaised() }, () => {
  test("is above that of guests, for its event loop and its session", async (t) => {
    await using tmp = await makeTmpDir("priority");
    const { pid } = await startProcess(t, tmp.path);
    assert.equal(findProcess(pid)?.nice, -5);
    if (hasSessions) assert.match(readFileSync(`/proc/${pid}/autogroup`, "utf8"), /nice -5$/m);
  });

  test("is not that of the programs and threads that it starts", async () => {
    const { standing, child, threads } = await tell([]);
    assert.deepEqual(standing, { nice: -5, session: hasSessions, reason: null });
    const [nice, session = "nice 0"] = child.trim().split("\n");
    assert.equal(nice, "0");
    assert.match(session, /nice 0$/);
    assert.ok(threads.length > 0);
    assert.deepEqual(new Set(threads), new Set([0]));
  });

  test("is left as whoever started it has set it", async () => {
    const { standing, child } = await tell(["nice", "-n", "3"]);
    assert.deepEqual([standing.nice, standing.session], [3, false]);
    assert.equal(child.split("\n")[0], "3");
  });

  test("is nobody's business when it may not be raised", async () => {
    const unprivileged = ["setpriv", "--bounding-set=-sys_nice", "--inh-caps=-sys_nice"];
    const { standing } = await tell(unprivileged);
    assert.equal(standing.nice, 0);
    assert.match(standing.reason ?? "", /EACCES|EPERM/);
  });
});
