import assert from "node:assert/strict";
import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { Guest } from "../../conformance/captured-guest.ts";
import { skipWithout } from "../../helpers/capability.ts";
import { eventually } from "../../helpers/eventually.ts";
import { type FirecrackerWorld, makeFirecrackerWorld } from "../../helpers/firecracker-guest.ts";

const skip = skipWithout("root", "compiler", "guest-agent");
const children = 100;
const atOnce = 8;

describe("a hundred children of Firecracker", { skip }, () => {
  let dir: string;
  let world: FirecrackerWorld;

  before(async () => {
    dir = await mkdtemp(join(tmpdir(), "forkd-fcl-"));
    world = await makeFirecrackerWorld({ dir });
    // The first one makes what is made once: an agent of node:http, the loop's own inotify.
    await cycle();
  });
  after(async () => {
    await world?.[Symbol.asyncDispose]();
    await rm(dir, { recursive: true, force: true });
  });

  const cycle = async (): Promise<void> => {
    const guest = await Guest.open(world, world.frozen);
    guest.session.close();
    await guest.vm.stop();
    await rm(guest.workDir, { recursive: true });
  };

  test("leave no process, socket, descriptor, watch or directory", async () => {
    const before = holdings();
    const names = (await readdir(dir)).sort();
    for (let started = 0; started < children; started += atOnce) {
      const batch = Math.min(atOnce, children - started);
      await Promise.all(Array.from({ length: batch }, cycle));
    }
    world.vms.length = 0;
    assert.deepEqual((await readdir(dir)).sort(), names);
    await eventually(() => assert.deepEqual(holdings(), before));
  });
});

/** What this process has: children, sockets, and directories that it watches. */
function holdings() {
  const tasks = `/proc/${process.pid}/task/${process.pid}/children`;
  const fds = readdirSync("/proc/self/fd").map((fd) => ({ fd, target: targetOf(fd) }));
  const watches = fds
    .filter(({ target }) => target.includes("inotify"))
    .map(({ fd }) => readFileSync(`/proc/self/fdinfo/${fd}`, "utf8").match(/^inotify /gm) ?? []);
  return {
    processes: readFileSync(tasks, "utf8").trim(),
    sockets: fds.filter(({ target }) => target.startsWith("socket:")).length,
    watches: watches.flat().length,
  };
}

function targetOf(fd: string): string {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`);
  } catch {
    return "";
  }
}
