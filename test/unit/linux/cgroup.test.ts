import assert from "node:assert/strict";
import { test } from "node:test";
import { mountOf, splitDevice } from "@forkd/host/linux/cgroup/block-device.ts";
import { parseOomKills } from "@forkd/host/linux/cgroup/group.ts";
import { parseHierarchies } from "@forkd/host/linux/cgroup/hierarchies.ts";
import { type LimitName, limitNames, planLimit } from "@forkd/host/linux/cgroup/settings.ts";

const unifiedMount =
  "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate";
const v1Mounts = [
  "33 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct",
  "35 31 0:32 /docker/ab /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory",
  "40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd",
  "41 31 0:38 / /sys/fs/cgroup/unified\\040two rw - cgroup2 cgroup2 rw",
  "27 1 254:0 / / rw,relatime - ext4 /dev/vda rw",
].join("\n");

test("a unified host has one hierarchy, with our own group in it", () => {
  assert.deepEqual(parseHierarchies(unifiedMount, "0::/system.slice/forkd.service\n"), [
    {
      version: 2,
      mountPoint: "/sys/fs/cgroup",
      controllers: [],
      ownDir: "/sys/fs/cgroup/system.slice/forkd.service",
    },
  ]);
});

test("v1 hierarchies are found by their controllers, below what their mounts show", () => {
  const own = "5:name=systemd:/\n4:memory:/docker/ab/cd\n2:cpu,cpuacct:/x\n0::/y\n";
  const found = parseHierarchies(v1Mounts, own);
  assert.deepEqual(
    found.map(({ version, ownDir }) => [version, ownDir]),
    [
      [1, "/sys/fs/cgroup/cpu,cpuacct/x"],
      [1, "/sys/fs/cgroup/memory/cd"],
      [1, "/sys/fs/cgroup/systemd"],
      [2, "/sys/fs/cgroup/unified two/y"],
    ],
  );
  assert.deepEqual(found[0]?.controllers, ["cpu", "cpuacct"]);
});

test("a process outside of what a mount shows counts as at its top", () => {
  const [memory] = parseHierarchies(v1Mounts, "4:memory:/elsewhere\n");
  assert.equal(memory?.ownDir, "/sys/fs/cgroup/memory");
  const [unified] = parseHierarchies(unifiedMount, "0::/../../elsewhere\n");
  assert.equal(unified?.ownDir, "/sys/fs/cgroup");
});

const values: Readonly<Record<LimitName, number>> = {
  memoryBytes: 67_108_864,
  cpus: 0.5,
  pids: 256,
  readBps: 1_000_000,
  writeBps: 2_000_000,
};

function written(version: 1 | 2): string[] {
  return limitNames.flatMap((name) => {
    const plan = planLimit(name, values[name], { version, device: "254:0" });
    return "reason" in plan ? [] : plan.settings.map(({ file, text }) => `${file} < ${text}`);
  });
}

test("each limit is written as the kernel documents it", () => {
  assert.deepEqual(written(2), [
    "memory.max < 67108864",
    "memory.swap.max < 0",
    "memory.oom.group < 1",
    "cpu.max < 50000 100000",
    "pids.max < 256",
    "io.max < 254:0 rbps=1000000",
    "io.max < 254:0 wbps=2000000",
  ]);
  assert.deepEqual(written(1), [
    "memory.limit_in_bytes < 67108864",
    "memory.memsw.limit_in_bytes < 67108864",
    "cpu.cfs_period_us < 100000",
    "cpu.cfs_quota_us < 50000",
    "pids.max < 256",
    "blkio.throttle.read_bps_device < 254:0 1000000",
  ]);
});

test("what was read back counts only when it is the limit", () => {
  const plan = planLimit("writeBps", 2_000_000, { version: 2, device: "254:0" });
  assert.ok(!("reason" in plan));
  const [setting] = plan.settings;
  assert.ok(setting !== undefined);
  assert.match("254:0 rbps=1000000 wbps=2000000 riops=max wiops=max", setting.expected);
  assert.match("254:0 wbps=2000000", setting.expected);
  for (const other of [
    "",
    "254:0 rbps=2000000 wbps=max riops=max wiops=max",
    "254:0 rbps=max wbps=20000000 riops=max wiops=max",
    "1254:0 wbps=2000000",
  ]) {
    assert.doesNotMatch(other, setting.expected);
  }
});

test("a quota is never less than the kernel's least one", () => {
  const plan = planLimit("cpus", 0.000_1, { version: 2, device: "" });
  assert.ok(!("reason" in plan));
  assert.equal(plan.settings[0]?.text, "1000 100000");
});

test("kills are counted, pressure and limits reached are not", () => {
  assert.equal(parseOomKills("low 0\nhigh 0\nmax 31\noom 2\noom_kill 1\noom_group_kill 1\n"), 1);
  assert.equal(parseOomKills("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"), 3);
  assert.equal(parseOomKills("oom_kill_disable 0\nunder_oom 1\n"), 0);
});

test("device numbers are taken apart as Linux puts them together", () => {
  assert.equal(splitDevice(0xfe00n), "254:0");
  assert.equal(splitDevice(0x1111_0370n), "259:70000");
});

test("a file system without a device number of its own is known by what was mounted", () => {
  const mountinfo = "60 1 0:41 /@ /data\\040dir rw - btrfs /dev/nvme0n1p2 rw\n";
  assert.deepEqual(mountOf(mountinfo, "0:41"), { type: "btrfs", source: "/dev/nvme0n1p2" });
  assert.equal(mountOf(mountinfo, "0:4"), undefined);
});
