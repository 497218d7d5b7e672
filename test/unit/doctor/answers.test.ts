import assert from "node:assert/strict";
import { test } from "node:test";
import type { HostFacts } from "@forkd/api";
import { engineDefaults } from "@forkd/host/config/engine-settings.ts";
import { checkNames, diagnose } from "@forkd/host/doctor/doctor.ts";
import type { DaemonAnswer } from "@forkd/host/doctor/scope.ts";
import { makeDoctorHost, saying } from "../../helpers/doctor-host.ts";

const gib = 1024 ** 3;
const facts: HostFacts = {
  version: "1.2.3",
  pid: process.pid,
  data_dir: "/data",
  snapshots_dir: "/elsewhere/snapshots",
  snapshots_free_bytes: 100 * gib,
  snapshots_total_bytes: 200 * gib,
};

const answers: readonly (readonly [DaemonAnswer, string, RegExp, RegExp | null])[] = [
  [{ kind: "up", facts }, "pass", /answers, 1\.2\.3/, null],
  [{ kind: "up", facts: { ...facts, version: "1.0.0" } }, "warn", /runs 1\.0\.0/, /restart/],
  [{ kind: "other", version: "0.5.2" }, "warn", /runs 0\.5\.2, this is 1\.2\.3/, /restart/],
  [{ kind: "refused", reason: "invalid bearer token" }, "fail", /invalid bearer/, /FORKD_TOKEN/],
  [{ kind: "absent", reason: "refused" }, "warn", /nobody answers/, /systemctl start/],
  [{ kind: "broken", reason: "500" }, "fail", /500/, /journalctl/],
];

for (const [answer, status, detail, hint] of answers) {
  test(`a daemon that is ${answer.kind} is told as ${status}: ${detail.source}`, async () => {
    await using host = await makeDoctorHost();
    const found = await host.look("daemon", saying(answer));
    assert.equal(found.status, status);
    assert.match(found.detail, detail);
    if (hint === null) assert.equal(found.hint, null);
    else assert.match(found.hint ?? "", hint);
  });
}

test("room is that of the daemon's snapshots, not of the caller's", async () => {
  await using host = await makeDoctorHost();
  const room = (bytes: number) =>
    saying({ kind: "up", facts: { ...facts, snapshots_free_bytes: bytes } });
  const found = [];
  for (const bytes of [100 * gib, 3 * gib, gib / 2]) {
    found.push(await host.look("disk-space", room(bytes)));
  }
  assert.deepEqual(
    found.map(({ status }) => status),
    ["pass", "warn", "fail"],
  );
  assert.match(
    found[2]?.detail ?? "",
    /0\.5 GiB are free for \/elsewhere\/snapshots, of the daemon/,
  );
  assert.match(found[2]?.hint ?? "", /forkd cleanup --yes/);
});

test("the limits are the daemon's own, when it runs here", async () => {
  await using host = await makeDoctorHost();
  const limits = (files: number) => `Limit\nMax open files  1024  ${files}  files\n`;
  await host.write("proc/4711/limits", limits(1024));
  const daemon = saying({ kind: "up", facts: { ...facts, pid: 4711 } });
  const found = await host.look("ulimits", daemon);
  assert.equal(found.status, "warn");
  assert.match(found.hint ?? "", /LimitNOFILE=65536.*daemon-reload/);
  await host.write("proc/4711/limits", limits(65_536));
  assert.equal((await host.look("ulimits", daemon)).status, "pass");
});

test("who asks for Firecracker needs KVM and Firecracker", async () => {
  await using host = await makeDoctorHost();
  await host.remove("dev/kvm");
  const engines = { ...engineDefaults, choice: "firecracker" } as const;
  assert.equal((await host.look("kvm", { engines })).status, "fail");
  const found = await host.look("firecracker", { engines });
  assert.equal(found.status, "fail");
  assert.equal(found.hint, "forkd firecracker install");
  await host.remove("bin/qemu-system-x86_64");
  assert.equal((await host.look("qemu", { engines })).status, "skip");
});

const releases: readonly (readonly [string, string, RegExp])[] = [
  ["1.9.0", "fail", /older than 1\.10\.0/],
  ["1.14.0", "fail", /may lose what a guest sends/],
  ["1.16.1", "fail", /no jailer beside/],
];

for (const [version, status, detail] of releases) {
  test(`Firecracker ${version} is judged: ${detail.source}`, async () => {
    await using host = await makeDoctorHost();
    await host.write("bin/firecracker", `#!/bin/sh\necho "Firecracker v${version}"\n`, 0o755);
    const found = await host.look("firecracker");
    assert.equal(found.status, status);
    assert.match(found.detail, detail);
  });
}

test("Firecracker with its jailer passes", async () => {
  await using host = await makeDoctorHost();
  await host.write("bin/firecracker", '#!/bin/sh\necho "Firecracker v1.16.1"\n', 0o755);
  await host.write("bin/jailer", "#!/bin/sh\n", 0o755);
  assert.equal((await host.look("firecracker")).status, "pass");
});

test("a kernel that refuses a call is quoted", async () => {
  await using host = await makeDoctorHost();
  const refused = ["userfaultfd", "uffd-wp-private", "uffd-wp-shmem", "pagemap-scan", "memfd"];
  const lines = refused.map((name) => `${name} 1 Operation not permitted`).join("\\n");
  await host.write("native/forkd-probe", `#!/bin/sh\nprintf '${lines}\\nclock ok\\n'\n`, 0o755);
  process.env["FORKD_NATIVE_DIR"] = `${host.root}/native`;
  try {
    for (const name of ["uffd_wp", "uffd_shmem", "pagemap_scan", "memfd_create"]) {
      const found = await host.look(name);
      assert.equal(found.status, name === "memfd_create" ? "fail" : "warn");
      assert.match(found.detail, /Operation not permitted/);
    }
    assert.equal((await host.look("clock")).status, "pass");
    const helpers = await host.look("helpers");
    assert.match(helpers.detail, /not built: forkd-launch, .*forkd-ram/);
  } finally {
    delete process.env["FORKD_NATIVE_DIR"];
  }
});

test("a program that hangs costs its check and no other", async () => {
  await using host = await makeDoctorHost();
  await host.write("bin/qemu-system-x86_64", "#!/bin/sh\nexec /bin/sleep 60\n", 0o755);
  const only = ["qemu", "docker", "memory"];
  const reports = await diagnose(host.scope, { only, fix: false });
  const found = new Map(reports.map((report) => [report.name, report]));
  assert.equal(found.get("qemu")?.status, "fail");
  assert.match(found.get("qemu")?.detail ?? "", /took longer than/);
  assert.equal(found.get("docker")?.status, "pass");
  assert.equal(found.get("memory")?.status, "pass");
});

test("a check that does not exist is refused with those that do", async () => {
  await using host = await makeDoctorHost();
  await assert.rejects(diagnose(host.scope, { only: ["nonsense"], fix: false }), {
    code: "bad_request",
    hint: /platform, kernel, .*leaks/,
  });
});

test("upstream's checks are all there", () => {
  const names = checkNames();
  assert.equal(new Set(names).size, names.length);
  const upstream =
    "platform hw-virt kvm cgroup ip_forward tap netns firecracker guest-kernel snapshot-dir " +
    "disk-space docker daemon uffd_wp memfd_create ksm hugepages";
  for (const name of upstream.split(" ")) assert.ok(names.includes(name), name);
});
