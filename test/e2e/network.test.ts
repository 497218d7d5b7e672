import assert from "node:assert/strict";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { type EgressInput, limits, type SandboxInfo, toForkdError } from "@forkd/api";
import { resolveDataPaths } from "@forkd/host/config/data-paths.ts";
import { dataDirHash } from "@forkd/host/fork/data-dir-hash.ts";
import { run } from "@forkd/host/lib/exec.ts";
import { NetnsPool } from "@forkd/host/linux/net/pool.ts";
import { type Baked, ensureBaked } from "../helpers/baked.ts";
import { missing } from "../helpers/capabilities.ts";
import { skipWithout } from "../helpers/capability.ts";
import { forkd } from "../helpers/cli.ts";
import type { CrashOrder } from "../helpers/crash/daemon.ts";
import { CrashingDaemon } from "../helpers/crash/process.ts";
import { startDaemon, type TestDaemon } from "../helpers/daemon.ts";
import { type DataDir, makeDataDir } from "../helpers/data-dir.ts";
import { eventually } from "../helpers/eventually.ts";
import { enterOwnNetwork, skipWithoutOwnNetwork } from "../helpers/own-network.ts";
import { ports, TestWorld, world } from "../helpers/test-world.ts";

const skip =
  skipWithoutOwnNetwork() ||
  skipWithout("qemu", "guest-agent") ||
  missing({ programs: ["iptables", "ip6tables"] });
const namespaces = 6;
/** On every address of the host itself: what nobody inside may reach. */
const hostPort = 7070;

/** Tries all at once, in the guest; prints what came of each. */
const probe = `
import json, socket, sys
from concurrent.futures import ThreadPoolExecutor
def attempt(target):
    try:
        with socket.create_connection(tuple(target), 2) as s:
            return s.recv(16).decode().strip()
    except OSError:
        return "closed"
targets = json.loads(sys.argv[1])
with ThreadPoolExecutor(16) as pool:
    print(json.dumps(list(pool.map(attempt, targets))))
`;

type Target = readonly [address: string, port: number];

/** Ways in which a host drops what is forwarded: its own rules, and Docker's by iptables. */
const firewalls: readonly { readonly begin: string; readonly end: string }[] = [
  {
    begin: `nft add table inet site
      nft 'add chain inet site through { type filter hook forward priority 0; policy drop; }'`,
    end: "nft delete table inet site",
  },
  {
    begin: `iptables -P FORWARD DROP; iptables -N DOCKER-USER; iptables -A FORWARD -j DOCKER-USER
      iptables -A DOCKER-USER -j RETURN; ip6tables -P FORWARD DROP`,
    end: "for t in iptables ip6tables; do $t -P FORWARD ACCEPT; $t -F; $t -X; done",
  },
];

function networkTests(): void {
  let baked: Baked;
  let dir: DataDir;
  let daemon: TestDaemon;
  const stack = new AsyncDisposableStack();

  before(async () => {
    baked = await ensureBaked();
    dir = stack.use(await makeDataDir("network", baked));
    const servers = stack.use(await TestWorld.make());
    await servers.serve(null, [hostPort]);
    await servers.serveNames(join(dir.path, "resolv.conf"), world.public4);
    daemon = await startDaemon(dir.path);
  });
  after(async () => {
    await daemon?.killAll();
    await stack.disposeAsync();
  });

  const spawn = async (egress?: EgressInput, tag = baked.tag): Promise<SandboxInfo> => {
    const body = { snapshot_tag: tag, per_child_netns: true, ...(egress && { egress }) };
    const [info] = await daemon.client.createSandboxes({ body });
    return info ?? assert.fail();
  };
  const shell = async ({ id }: SandboxInfo, command: string): Promise<string> => {
    const body = { args: ["sh", "-c", command] };
    return (await daemon.client.execSandbox({ params: { id }, body })).stdout;
  };
  /** What a sandbox reaches: each target's own answer, or `closed`. */
  const reach = async ({ id }: SandboxInfo, targets: readonly Target[]): Promise<string[]> => {
    const body = { args: ["python3", "-c", probe, JSON.stringify(targets)] };
    const { stdout, stderr } = await daemon.client.execSandbox({ params: { id }, body });
    assert.notEqual(stdout, "", stderr);
    return JSON.parse(stdout);
  };
  const free = async (): Promise<number> => (await new NetnsPool().free()).length;

  test("without namespaces a spawn fails at once, and says how to make them", async () => {
    await assert.rejects(spawn(), (error: unknown) => {
      const { code, hint } = toForkdError(error);
      assert.equal(code, "netns_unavailable");
      assert.match(hint, /sudo forkd netns setup 1$/);
      return true;
    });
    assert.deepEqual(await daemon.client.listSandboxes(), []);
  });

  test("namespaces are made once, and again when they are there", async () => {
    for (const [made, kept] of [
      [namespaces, 0],
      [0, namespaces],
    ]) {
      const end = await forkd(["netns", "setup", String(namespaces), "--json"], {
        dataDir: dir.path,
      });
      assert.deepEqual(JSON.parse(end.stdout), { made, kept }, end.stderr);
    }
  });

  test("a namespace that somebody removed is made again, and not taken for the old one", async () => {
    const pool = new NetnsPool();
    const holder = "000000000000.sb-nobody";
    const old = (await pool.take("forkd-child-1", holder)) ?? assert.fail();
    await run(["ip", "netns", "del", "forkd-child-1"]);
    await run(["ip", "netns", "del", "forkd-child-2"]);
    const other = await spawn();
    assert.equal(other.netns, "forkd-child-3");
    await daemon.client.deleteSandbox({ params: { id: other.id } });
    const again = await forkd(["netns", "setup", "2", "--json"], { dataDir: dir.path });
    assert.deepEqual(JSON.parse(again.stdout), { made: 2, kept: 0 }, again.stderr);
    const fresh = (await pool.take("forkd-child-1", "000000000000.sb-other")) ?? assert.fail();
    // The first one's end is no business of the second one's.
    await pool.release(old.path);
    assert.equal(await free(), namespaces - 1);
    await pool.release(fresh.path);
    assert.equal(await free(), namespaces);
  });

  test("a namespace that is held for no sandbox is a leak, and is given back", async () => {
    const paths = resolveDataPaths({ FORKD_DATA_DIR: dir.path }, 0);
    await new NetnsPool().take("forkd-child-1", `${dataDirHash(paths)}.sb-gone`);
    const leaks = async (...flags: string[]): Promise<string[]> => {
      const { stdout } = await forkd(["leaks", "--json", ...flags], { dataDir: dir.path });
      return JSON.parse(stdout).map(({ kind }: { kind: string }) => kind);
    };
    assert.ok((await leaks()).includes("netns"));
    assert.equal(await free(), namespaces - 1);
    await leaks("--fix");
    assert.equal(await free(), namespaces);
  });

  test("a sandbox that asks for nothing reaches nothing, and works", async () => {
    const child = await spawn();
    const targets: Target[] = [
      [world.public4, ports.web],
      [world.public6, ports.web],
      ["10.43.0.1", hostPort],
      ["10.42.0.1", hostPort],
    ];
    assert.deepEqual(
      await reach(child, targets),
      targets.map(() => "closed"),
    );
    const params = { id: child.id };
    const { result } = await daemon.client.evalSandbox({ params, body: { code: "6 * 7" } });
    assert.equal(result, "42");
    const inside = ["exec", "--child", child.netns ?? "", "--", "hostname"];
    const door = await forkd(inside, { dataDir: dir.path });
    assert.equal(door.stdout.trim(), child.id, door.stderr);
    await daemon.client.deleteSandbox({ params });
  });

  test("what a policy names is open, on its ports only, IPv6 too", async () => {
    const child = await spawn({
      allow: [
        { cidr: `${world.public4}/32`, ports: [ports.web], protocol: "tcp" },
        { cidr: world.public6, ports: ["8000-8100"] },
      ],
    });
    const seen = await reach(child, [
      [world.public4, ports.web],
      [world.public4, ports.other],
      [world.other4, ports.web],
      [world.public6, ports.web],
      [world.public6, ports.other],
      [world.private4, ports.web],
      [world.metadata4, ports.web],
    ]);
    const [web, closed] = [String(ports.web), "closed"];
    assert.deepEqual(seen, [web, closed, closed, web, closed, closed, closed]);
    await daemon.client.deleteSandbox({ params: { id: child.id } });
  });

  test("with an open policy, private ranges and metadata stay closed unless listed", async () => {
    const targets: Target[] = [
      [world.public4, ports.web],
      [world.public6, ports.other],
      [world.other4, ports.web],
      [world.private4, ports.web],
      [world.metadata4, ports.web],
      [world.metadata6, ports.web],
    ];
    const [web, other, closed] = [String(ports.web), String(ports.other), "closed"];
    const broad = await spawn({ default: "allow", allow: [{ cidr: "0.0.0.0/0" }] });
    assert.deepEqual(await reach(broad, targets), [web, other, web, closed, closed, closed]);
    const listed = await spawn({
      default: "allow",
      deny: [{ cidr: world.other4 }],
      allow: [
        { cidr: "192.168.0.0/16" },
        { cidr: world.metadata4, ports: [ports.web] },
        { cidr: "169.254.0.0/16", ports: [ports.other] },
      ],
    });
    const seen = await reach(listed, [...targets, [world.metadata4, ports.other]]);
    assert.deepEqual(seen, [web, other, closed, web, web, closed, closed]);
    for (const { id } of [broad, listed]) await daemon.client.deleteSandbox({ params: { id } });
  });

  test("names are answered by what the host uses, on its loopback, when the policy says so", async () => {
    const lookup = (seconds: number): string =>
      `timeout ${seconds} getent ahostsv4 some.name.test | head -1 | cut -d" " -f1`;
    const open = await spawn({ default: "allow" });
    assert.equal((await shell(open, lookup(20))).trim(), world.public4);
    assert.equal((await shell(open, `RES_OPTIONS=use-vc ${lookup(20)}`)).trim(), world.public4);
    await daemon.stop();
    daemon = await startDaemon(dir.path);
    assert.equal((await shell(open, lookup(20))).trim(), world.public4);
    const shut = await spawn({ allow: [{ cidr: world.public4 }] });
    const set = "echo nameserver 10.42.0.1 >/etc/resolv.conf";
    assert.equal(await shell(shut, `${set}; ${lookup(2)}`), "");
    for (const { id } of [open, shut]) await daemon.client.deleteSandbox({ params: { id } });
  });

  test("children reach neither each other nor the host, whatever they may reach", async () => {
    const everything: EgressInput = {
      default: "allow",
      allow: [{ cidr: "10.0.0.0/8" }, { cidr: "fc00::/7" }],
    };
    const [one, two] = [await spawn(everything), await spawn(everything)];
    const inNetns = await new NetnsPool().held();
    const numbers = inNetns.map(({ number }) => number + 1);
    const guests = [one, two].map(({ identity }) => identity?.ip ?? assert.fail());
    const targets: Target[] = [
      ...numbers.map((last): Target => [`10.43.0.${last}`, 8888]),
      ...numbers.map((last): Target => [`fd43:666f:726b::${last.toString(16)}`, 8888]),
      ["10.43.0.1", hostPort],
      ["203.0.113.1", hostPort],
      ["fd43:666f:726b::1", hostPort],
      ["2001:db8:1::1", hostPort],
      ["10.42.0.1", hostPort],
    ];
    const closed = targets.map(() => "closed");
    assert.deepEqual(await reach(one, [...targets, [guests[1] ?? "", 8888]]), [
      ...closed,
      "closed",
    ]);
    assert.deepEqual(await reach(two, targets), closed);
    assert.deepEqual(await reach(two, [[world.public4, ports.web]]), [String(ports.web)]);
    for (const { id } of [one, two]) await daemon.client.deleteSandbox({ params: { id } });
    assert.equal(await free(), namespaces);
  });

  test("children, and those of a branch, have cards and addresses of their own", async () => {
    const open: EgressInput = { default: "allow" };
    const parent = await spawn(open);
    await daemon.client.branchSandbox({ params: { id: parent.id }, body: { tag: "branched" } });
    const children = [await spawn(open, "branched"), await spawn(open, "branched")];
    for (const child of [parent, ...children]) {
      const { mac, ip } = child.identity ?? assert.fail();
      assert.ok(mac !== null && ip !== null);
      assert.equal((await shell(child, "cat /sys/class/net/eth0/address")).trim(), mac);
      const addresses = await shell(child, "cat /proc/net/fib_trie");
      for (const other of [parent, ...children]) {
        const has = addresses.includes(`${other.identity?.ip}\n`);
        assert.equal(has, other.id === child.id, `${child.id}: ${addresses}`);
      }
      assert.deepEqual(await reach(child, [[world.public4, ports.web]]), [String(ports.web)]);
    }
    const body = { snapshot_tag: "branched" };
    const [offline = assert.fail()] = await daemon.client.createSandboxes({ body });
    assert.equal(offline.netns, null);
    assert.doesNotMatch(await shell(offline, "cat /proc/net/route"), /eth0/);
    for (const { id } of [parent, offline, ...children]) {
      await daemon.client.deleteSandbox({ params: { id } });
    }
  });

  test("a killed daemon's sandboxes keep their networks; dead ones give them back", async () => {
    const survivor = await spawn({ default: "allow" });
    const victim = await spawn({ default: "allow" });
    await daemon.crash();
    process.kill(victim.pid ?? assert.fail(), "SIGKILL");
    daemon = await startDaemon(dir.path);
    await eventually(async () => assert.equal(await free(), namespaces - 1));
    const info = await daemon.client.getSandbox({ params: { id: survivor.id } });
    assert.deepEqual([info.netns, info.egress], [survivor.netns, survivor.egress]);
    assert.deepEqual(await reach(info, [[world.public4, ports.web]]), [String(ports.web)]);
    await daemon.client.deleteSandbox({ params: { id: survivor.id } });
    assert.equal(await free(), namespaces);
    const leaks = await forkd(["leaks", "--json"], { dataDir: dir.path });
    const kinds = JSON.parse(leaks.stdout).map(({ kind }: { kind: string }) => kind);
    assert.ok(!kinds.includes("netns"), leaks.stdout);
  });

  test("a daemon that is killed in a spawn or an end leaves no namespace held", async (t) => {
    await daemon.stop();
    // A control group is the first resource of a sandbox, its namespace the second.
    const orders: CrashOrder[] = [
      { step: "resource_recorded", occurrence: 2 },
      { step: "resource_taken", occurrence: 2 },
      { step: "identity_proven", occurrence: 1 },
      { step: "vmm_stopped", occurrence: 1 },
    ];
    for (const order of orders) {
      const doomed = new CrashingDaemon(dir.path, join(dir.path, "audit.log"));
      // One that outlived a failure would keep this process from its end.
      t.after(() => doomed.end("kill"));
      doomed.order(order);
      const client = await doomed.listening();
      assert.equal(await free(), namespaces, `before ${order.step}`);
      const body = { snapshot_tag: baked.tag, per_child_netns: true };
      const cutOff = client
        .createSandboxes({ body })
        .then(([info]) => client.deleteSandbox({ params: { id: info?.id ?? "" } }));
      await assert.rejects(cutOff);
      await doomed.end("wait");
      assert.equal(doomed.crashedAt, order.step);
    }
    daemon = await startDaemon(dir.path);
    assert.equal(await free(), namespaces);
  });

  test("a firewall that drops what is forwarded is found, and doctor's hint lets children out", async () => {
    const look = async (): Promise<{ status: string; hint: string }> => {
      const args = ["doctor", "--only", "forward", "--json"];
      return JSON.parse((await forkd(args, { dataDir: dir.path })).stdout).checks[0];
    };
    const shellOf = (script: string) => run(["sh", "-euc", `sudo() { "$@"; }\n${script}`]);
    const child = await spawn({ allow: [{ cidr: world.public4 }, { cidr: world.public6 }] });
    const targets: Target[] = [
      [world.public4, ports.web],
      [world.public6, ports.web],
    ];
    const open = targets.map(() => String(ports.web));
    assert.equal((await look()).status, "pass");
    for (const { begin, end } of firewalls) {
      await shellOf(begin);
      assert.notDeepEqual(await reach(child, targets), open, begin);
      const { status, hint } = await look();
      assert.equal(status, "warn", begin);
      await shellOf(hint);
      await eventually(async () => assert.deepEqual(await reach(child, targets), open, hint));
      assert.equal((await look()).status, "pass", hint);
      await shellOf(end);
    }
    await daemon.client.deleteSandbox({ params: { id: child.id } });
  });

  test("a policy that is not understood is refused, and one without a network", async () => {
    const wrong: object[] = [
      { per_child_netns: false, egress: {} },
      { per_child_netns: true, egress: { allow: [{ cidr: "nowhere" }] } },
      { per_child_netns: true, egress: { allow: [{ cidr: "10.0.0.0/33" }] } },
      { per_child_netns: true, egress: { allow: [{ cidr: "10.0.0.0/8", ports: [0] }] } },
      { per_child_netns: true, egress: { allow: [{ cidr: "10.0.0.0/8", ports: ["9-1"] }] } },
      { per_child_netns: true, egress: { allowed: [] } },
      {
        per_child_netns: true,
        egress: { deny: Array(limits.egressRulesMax + 1).fill({ cidr: "10.0.0.0/8" }) },
      },
    ];
    for (const fields of wrong) {
      const answer = await fetch(`${daemon.url}/v1/sandboxes`, {
        method: "POST",
        headers: { authorization: `Bearer ${daemon.token}`, "content-type": "application/json" },
        body: JSON.stringify({ snapshot_tag: baked.tag, ...fields }),
      });
      assert.equal(answer.status, 400, JSON.stringify(fields).slice(0, 100));
    }
    assert.equal(await free(), namespaces);
  });

  test("a teardown leaves those that are in use, and then nothing at all", async () => {
    const child = await spawn();
    const teardown = ["netns", "teardown", "--yes", "--include-bridge", "--json"];
    const refused = await forkd(teardown, { dataDir: dir.path });
    assert.equal(JSON.parse(refused.stderr).code, "netns_unavailable", refused.stderr);
    assert.equal(await shell(child, "echo lives"), "lives\n");
    await daemon.client.deleteSandbox({ params: { id: child.id } });
    const done = await forkd(teardown, { dataDir: dir.path });
    assert.equal(done.code, 0, done.stderr);
    const names = await forkd(["netns", "ls", "--json"], { dataDir: dir.path });
    assert.deepEqual(JSON.parse(names.stdout), []);
  });
}

if (skip !== false || (await enterOwnNetwork(import.meta.filename, () => ensureBaked()))) {
  describe("networks of children", { skip }, networkTests);
}
