import assert from "node:assert/strict";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { run } from "@forkd/host/lib/exec.ts";
import { repoRoot } from "../../helpers/baked.ts";
import { missing } from "../../helpers/capabilities.ts";
import { FakeFirecracker } from "../../helpers/fake-firecracker.ts";
import { makeTmpDir, type TmpDir } from "../../helpers/tmp.ts";

const skip = missing({ root: true, programs: ["unshare", "cc", "make"] });
const script = join(repoRoot, "scripts/setup-host.sh");

/** Directories of the host that the script changes, and what a new host has in them. */
const places = {
  "/sys/kernel/mm/ksm": { run: "0\n", sleep_millisecs: "20\n", pages_to_scan: "100\n" },
  "/etc/tmpfiles.d": {},
  "/etc/sysctl.d": {},
  "/proc/sys/vm": { nr_hugepages: "0\n" },
  // Only whether they are there is asked.
  "/dev": { kvm: "", null: "" },
};

const mounts = ["/sys/kernel/mm/ksm", "/etc", "/proc/sys/vm/nr_hugepages", "/dev"];

/** Runs the script where these directories are copies: nothing of this host is changed. */
class CopiedHost {
  readonly #tmp: TmpDir;

  private constructor(tmp: TmpDir) {
    this.#tmp = tmp;
  }

  static async make(tmp: TmpDir): Promise<CopiedHost> {
    const host = new CopiedHost(tmp);
    // The whole of it: a minimal system lacks some of what is to be mounted over.
    await mkdir(host.path("/etc"), { recursive: true });
    await run(["cp", "-a", "/etc/.", host.path("/etc")]);
    for (const [place, files] of Object.entries(places)) {
      await mkdir(host.path(place), { recursive: true });
      for (const [name, text] of Object.entries(files)) {
        await writeFile(host.path(`${place}/${name}`), text);
      }
    }
    return host;
  }

  path(place: string): string {
    return join(this.#tmp.path, "host", place);
  }

  setup(...args: string[]): Promise<string> {
    return this.#run([script, "--no-packages", ...args].map((word) => `'${word}'`).join(" "));
  }

  /** A user of the copy's, in no group but its own. */
  async addUser(name: string): Promise<void> {
    await this.#run(`getent group kvm || groupadd kvm; useradd --no-create-home ${name}`);
  }

  groupsOf(name: string): Promise<string> {
    return this.#run(`id -nG ${name}`);
  }

  async #run(words: string): Promise<string> {
    const binds = mounts.map((place) => `mount --bind '${this.path(place)}' ${place}`);
    const { stdout, stderr } = await run(
      ["unshare", "--mount", "sh", "-euc", [...binds, words].join("\n")],
      { env: { ...process.env, FORKD_DATA_DIR: join(this.#tmp.path, "data") } },
    );
    return stdout + stderr;
  }
}

test("a host is set up once, says what it changed, and a second run changes nothing", {
  skip,
}, async () => {
  await using tmp = await makeTmpDir("setup-host");
  const host = await CopiedHost.make(tmp);
  const planned = await host.setup("--dry-run");
  assert.match(planned, /would change: \/sys\/kernel\/mm\/ksm\/run from 0 to 1/);
  assert.match(planned, /==> 4 changes to make/);
  assert.equal(await readFile(host.path("/sys/kernel/mm/ksm/run"), "utf8"), "0\n");

  const first = await host.setup();
  assert.match(first, /changed: \/sys\/kernel\/mm\/ksm\/run from 0 to 1/);
  assert.match(first, /==> 4 changes made/);
  assert.equal(await readFile(host.path("/sys/kernel/mm/ksm/run"), "utf8"), "1\n");
  assert.equal(await readFile(host.path("/sys/kernel/mm/ksm/pages_to_scan"), "utf8"), "1000\n");
  const kept = await readFile(host.path("/etc/tmpfiles.d/forkd.conf"), "utf8");
  assert.match(kept, /^w \/sys\/kernel\/mm\/ksm\/run - - - - 1$/m);

  assert.match(await host.setup(), /==> nothing to change/);
});

test("Firecracker is taken from what is named, once", { skip }, async () => {
  await using tmp = await makeTmpDir("setup-host");
  const host = await CopiedHost.make(tmp);
  const { binary: firecracker } = await FakeFirecracker.make(join(tmp.path, "fake"));
  const { stdout } = await run(["sha256sum", firecracker]);
  const words = ["--firecracker", firecracker, "--sha256", stdout.slice(0, 64)];
  assert.match(await host.setup(...words), /changed: Firecracker in .*-[0-9a-f]{12}/);
  assert.match(await host.setup(...words), /ok: this Firecracker is installed/);
  await assert.rejects(host.setup("--firecracker", firecracker, "--sha256", "0".repeat(64)), {
    message: /Firecracker was not installed/,
  });
});

test("a user gets the group of /dev/kvm, once", { skip }, async () => {
  await using tmp = await makeTmpDir("setup-host");
  const host = await CopiedHost.make(tmp);
  await host.addUser("forkd-tester");
  const words = ["--user", "forkd-tester"];
  assert.match(await host.setup(...words), /changed: user forkd-tester into group kvm/);
  assert.match(await host.groupsOf("forkd-tester"), /\bkvm\b/);
  assert.match(await host.setup(...words), /ok: forkd-tester may open \/dev\/kvm/);
  const stranger = host.setup("--user", "forkd-nobody");
  await assert.rejects(stranger, { message: /there is no user forkd-nobody/ });
});

test("huge pages are set aside and given back, over a restart too", { skip }, async () => {
  await using tmp = await makeTmpDir("setup-host");
  const host = await CopiedHost.make(tmp);
  for (const pages of ["4", "0"]) {
    assert.match(await host.setup("--hugepages", pages), /changed: .*nr_hugepages from \d to \d/);
    assert.equal(await readFile(host.path("/proc/sys/vm/nr_hugepages"), "utf8"), `${pages}\n`);
    const kept = await readFile(host.path("/etc/sysctl.d/60-forkd.conf"), "utf8");
    assert.equal(kept, `vm.nr_hugepages = ${pages}\n`);
    assert.match(await host.setup("--hugepages", pages), /==> nothing to change/);
  }
});

test("a mistake in its words changes nothing and says how it is called", { skip }, async () => {
  await using tmp = await makeTmpDir("setup-host");
  const host = await CopiedHost.make(tmp);
  for (const words of [["--nonsense"], ["--hugepages", "x"], ["--firecracker", "/bin/true"]]) {
    await assert.rejects(host.setup(...words), { message: /usage: scripts\/setup-host.sh/ });
  }
  assert.equal(await readFile(host.path("/sys/kernel/mm/ksm/run"), "utf8"), "0\n");
});
