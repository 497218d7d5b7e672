import assert from "node:assert/strict";
import { test } from "node:test";
import { VmmBroker } from "@forkd/host/engine/broker.ts";
import { kernelCommandLine } from "@forkd/host/engine/firecracker/boot.ts";
import { cardRequest } from "@forkd/host/engine/firecracker/card.ts";
import { type FirecrackerHost, timeoutDefaults } from "@forkd/host/engine/firecracker/host.ts";
import {
  JailUsers,
  jailDefaults,
  jailDir,
  jailerArgv,
} from "@forkd/host/engine/firecracker/jail.ts";
import { loadBody } from "@forkd/host/engine/firecracker/restore.ts";
import { capabilitiesOf, parseVersion } from "@forkd/host/engine/firecracker/version.ts";

const hostOf = (text: string): FirecrackerHost => {
  const version = parseVersion(text);
  return {
    binary: "/opt/firecracker",
    version,
    capabilities: capabilitiesOf(version),
    jail: null,
    flatten: async ({ base }) => base,
    broker: new VmmBroker(),
    timeouts: timeoutDefaults,
  };
};

test("a load says what its release knows, and nothing else", () => {
  const from = { vmstate: "/s/vmstate", memory: "/s/memory.bin", card: null };
  const common = {
    snapshot_path: "/s/vmstate",
    mem_backend: { backend_type: "File", backend_path: "/s/memory.bin" },
    resume_vm: false,
  };
  assert.deepEqual(loadBody(hostOf("1.12.1"), from), { ...common, enable_diff_snapshots: true });
  assert.deepEqual(loadBody(hostOf("1.15.0"), from), { ...common, track_dirty_pages: true });
  assert.deepEqual(loadBody(hostOf("1.16.1"), from), {
    ...common,
    track_dirty_pages: true,
    vsock_override: { uds_path: "agent.sock" },
  });
});

test("a card is loaded with the tap of its own network, where a release can", () => {
  const card = { netns: "/run/netns/n1", tap: "forkd-tap0" };
  const from = { vmstate: "/s/vmstate", memory: "/s/memory.bin", card };
  const overrides = (release: string): unknown => loadBody(hostOf(release), from).network_overrides;
  assert.deepEqual(overrides("1.16.1"), [{ iface_id: "eth0", host_dev_name: "forkd-tap0" }]);
  assert.equal(overrides("1.11.0"), undefined);
  const parent = { iface_id: "eth0", host_dev_name: "forkd-tap0", guest_mac: "02:00:00:00:00:01" };
  assert.deepEqual(cardRequest(card), parent);
});

test("a guest is told where its agent listens, and that a reset ends its machine", () => {
  const plain = { upperMib: null, scratch: null };
  const words = kernelCommandLine(plain).split(" ");
  for (const word of ["reboot=k", "forkd.root=vda", "forkd.channel=vsock:1024"]) {
    assert.ok(words.includes(word), word);
  }
  assert.ok(kernelCommandLine({ ...plain, upperMib: 64 }).endsWith(" forkd.upper_mib=64"));
  const scratch = { file: "/s/scratch.0", format: "raw" } as const;
  assert.ok(kernelCommandLine({ ...plain, scratch }).endsWith(" forkd.scratch=vdb"));
  assert.equal(words.join(" ").includes("scratch"), false);
});

test("the jailer is told whom, where and how much, and seccomp is never taken off", () => {
  const argv = jailerArgv({
    settings: { ...jailDefaults, jailer: "/opt/jailer" },
    binary: "/opt/firecracker",
    workDir: "/w/sb-1",
    user: { uid: 820_007, gid: 820_000 },
    largestFileBytes: 512 * 1024 * 1024,
  });
  const after = (name: string): string | undefined => argv[argv.indexOf(name) + 1];
  assert.equal(argv[0], "/opt/jailer");
  assert.equal(argv.at(-1), "--");
  assert.equal(after("--exec-file"), "/opt/firecracker");
  assert.equal(after("--uid"), "820007");
  assert.equal(after("--gid"), "820000");
  assert.equal(after("--chroot-base-dir"), "/w/sb-1/jail");
  assert.ok(argv.includes(`fsize=${(512 + 64) * 1024 * 1024}`));
  assert.ok(argv.includes("no-file=1024"));
  assert.equal(argv.join(" ").includes("seccomp"), false);
  assert.equal(jailDir("/opt/firecracker"), "jail/firecracker/vm/root");
  // The API's socket is the longest that is connected to from outside: 107 bytes (unix(7)).
  const longest = `/var/lib/forkd/work/sb-6b035a10-e9799d207ccbefdd/${jailDir("/f/firecracker")}`;
  assert.ok(`${longest}/agent.sock_1024`.length <= 107, longest);
});

test("no two users of jails are one, and one that is given back is free", () => {
  const users = new JailUsers({ ...jailDefaults, uidCount: 2 });
  const [a, b] = [users.take(), users.take()];
  assert.notEqual(a.uid, b.uid);
  assert.throws(() => users.take(), { code: "busy" });
  users.release(a);
  assert.equal(users.take().uid, a.uid);
  users.release(b);
  users.keep(b);
  assert.throws(() => users.take(), { code: "busy" });
});
