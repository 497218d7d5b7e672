/** Upstream's Python Sandbox where root and a tap are, in a network of the test's own. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { run } from "@forkd/host/lib/exec.ts";
import { type Baked, ensureBaked, repoRoot } from "../helpers/baked.ts";
import { skipWithout } from "../helpers/capability.ts";
import { startForkd } from "../helpers/cli.ts";
import { type DataDir, makeDataDir } from "../helpers/data-dir.ts";
import { enterOwnNetwork, skipWithoutOwnNetwork } from "../helpers/own-network.ts";
import { type PythonClients, PythonSession, pythonClients } from "../helpers/python-clients.ts";

const guestAddress = "10.42.0.2";
const settle = ["--settle-secs", "3600"];
/** Why the packages are not there, told by the process that had the internet. */
const lackingKey = "FORKD_TEST_NO_PYTHON_CLIENTS";

function tapTests(): void {
  let baked: Baked;
  let data: DataDir;
  let python: PythonClients;

  before(async () => {
    baked = await ensureBaked();
    data = await makeDataDir("python-tap", baked);
    const found = await pythonClients();
    if ("skip" in found) assert.fail(found.skip);
    python = found;
    await run([join(repoRoot, "scripts/host-tap.sh")]);
  });
  after(async () => {
    await data?.assertNothingLeft();
    await data?.[Symbol.asyncDispose]();
  });

  /** As a user has it: nothing says where the guest is. */
  const environment = () => ({
    PATH: `${join(repoRoot, "bin")}:${process.env["PATH"]}`,
    FORKD_TAG: baked.tag,
    FORKD_DATA_DIR: data.path,
  });
  const loopback = async (): Promise<string> =>
    (await run(["ip", "-brief", "address", "show", "dev", "lo"])).stdout;

  test("Sandbox() needs no setting where the tap is there, and is only this host's", async () => {
    // Somebody on a cable, who sends what is for the guest to this host.
    const cable = [
      "netns add outside",
      "link add cable0 type veth peer name eth0 netns outside",
      "address add 192.0.2.1/24 dev cable0",
      "link set cable0 up",
    ];
    await run(["ip", "-batch", "-"], { input: `${cable.join("\n")}\n` });
    const outside = [
      "address add 192.0.2.2/24 dev eth0",
      "link set eth0 up",
      `route add ${guestAddress} via 192.0.2.1`,
    ];
    await run(["ip", "-netns", "outside", "-batch", "-"], { input: `${outside.join("\n")}\n` });
    await using session = new PythonSession(python, environment());
    await session.make("sandbox", "Sandbox");
    const ran = await session.call("sandbox.commands.run", ["echo $((6 * 7))"]);
    assert.deepEqual(ran, { stdout: "42\n", stderr: "", exit_code: 0 });
    assert.equal(await session.call("sandbox.eval", ["6 * 7"]), "42");
    const attempt = `import socket
with socket.create_connection(("${guestAddress}", 8888), 30) as s:
    s.settimeout(30)
    try:
        s.sendall(b'{"action": "ping"}\\n')
        print(len(s.recv(1)))
    except OSError:
        print(0)`;
    const inside = await run(["python3", "-c", attempt]);
    const stranger = await run(["ip", "netns", "exec", "outside", "python3", "-c", attempt]);
    assert.deepEqual([inside.stdout, stranger.stdout], ["1\n", "0\n"]);
    await session.call("sandbox.kill");
    assert.ok(!(await loopback()).includes(guestAddress), "the address was only lent");
  });

  test("a sandbox of its own namespace is reached over its tap", async () => {
    await run([join(repoRoot, "scripts/netns-setup.sh"), "1"]);
    const words = ["fork", "--tag", baked.tag, "-n", "1", "--per-child-netns", ...settle];
    const fork = startForkd(words, { dataDir: data.path });
    await using _ = {
      [Symbol.asyncDispose]: async () => {
        fork.process.kill("SIGTERM");
        await fork.ended;
      },
    };
    await fork.said(/total wall-clock/);
    const inside = ["ip", "netns", "exec", "forkd-child-1"];
    await using session = new PythonSession(python, environment(), inside);
    await session.make("sandbox", "Sandbox", { spawn: false });
    const pong = (await session.call("sandbox.ping")) as Record<string, unknown>;
    assert.equal(pong["pong"], true);
    const ran = await session.call("sandbox.commands.run", [
      "ip address || cat /proc/net/fib_trie",
    ]);
    assert.match((ran as { stdout: string }).stdout, /10\.42\.0\.2/);
    assert.equal(await session.call("sandbox.eval", ["numpy.zeros(2).tolist()"]), "[0.0, 0.0]");
  });
}

/** The internet is left behind with the host's network. */
async function prepare(): Promise<void> {
  await ensureBaked();
  const found = await pythonClients();
  if ("skip" in found) process.env[lackingKey] = found.skip;
}

const skip = skipWithoutOwnNetwork() || skipWithout("qemu", "guest-agent");
if (skip !== false || (await enterOwnNetwork(import.meta.filename, prepare))) {
  describe("Sandbox() on a tap", { skip: skip || (process.env[lackingKey] ?? false) }, tapTests);
}
