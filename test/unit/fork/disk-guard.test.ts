import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { closeSync, linkSync, openSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { setImmediate as turn } from "node:timers/promises";
import { DiskGuard } from "@forkd/host/fork/disk-guard.ts";
import { identifyProcess, type ProcessIdentity } from "@forkd/host/linux/proc.ts";
import { FakeVm } from "../../helpers/fake-vm.ts";
import { makeTmpDir } from "../../helpers/tmp.ts";

interface Opened {
  readonly path: string;
  readonly flags: string;
}

/** A VM whose process is a real one, which has some files open. */
class ProcessVm extends FakeVm {
  override readonly process: ProcessIdentity;

  constructor(files: readonly Opened[]) {
    super();
    const fds = files.map(({ path, flags }) => openSync(path, flags));
    const child = spawn("sleep", ["60"], { stdio: ["ignore", "ignore", "ignore", ...fds] });
    for (const fd of fds) closeSync(fd);
    this.process = identifyProcess(child.pid ?? 0) ?? assert.fail();
    void this.ended.then(() => child.kill("SIGKILL"));
  }
}

async function withFiles(
  work: (vm: (...files: readonly Opened[]) => ProcessVm, path: (name: string) => string) => unknown,
): Promise<void> {
  await using dir = await makeTmpDir("guard");
  const path = (name: string): string => join(dir.path, name);
  for (const name of ["disk", "base"]) writeFileSync(path(name), name);
  const vms: ProcessVm[] = [];
  try {
    await work((...files) => {
      const vm = new ProcessVm(files);
      vms.push(vm);
      return vm;
    }, path);
  } finally {
    for (const vm of vms) vm.die();
    await turn();
  }
}

test("two VMs that can write one file are refused, whatever it is called", async () => {
  await withFiles(async (vm, path) => {
    linkSync(path("disk"), path("alias"));
    const guard = new DiskGuard();
    await guard.admit(vm({ path: path("disk"), flags: "r+" }), "first", [path("base")]);
    const second = guard.admit(vm({ path: path("alias"), flags: "a" }), "second", []);
    await assert.rejects(second, {
      code: "disk_shared",
      message: /^the VM of second could write .*alias, which the VM of first writes$/,
    });
  });
});

test("a VM that can write what others read is refused", async () => {
  await withFiles(async (vm, path) => {
    const writer = vm({ path: path("base"), flags: "r+" });
    await assert.rejects(new DiskGuard().admit(writer, "one", [path("base")]), {
      code: "disk_shared",
      message: /^the VM of one could write .*base, which others read$/,
    });
  });
});

test("a VM that reads what another can write is refused", async () => {
  await withFiles(async (vm, path) => {
    const guard = new DiskGuard();
    await guard.admit(vm({ path: path("disk"), flags: "r+" }), "writer", []);
    const reader = vm({ path: path("disk"), flags: "r" });
    await assert.rejects(guard.admit(reader, "reader", [path("disk")]), {
      code: "disk_shared",
      message: /^the VM of writer could write .*disk, which the VM of reader reads$/,
    });
  });
});

test("VMs that only read the same files are admitted", async () => {
  await withFiles(async (vm, path) => {
    const guard = new DiskGuard();
    const shared = [path("base"), path("disk")];
    for (const name of ["first", "second"]) {
      await guard.admit(vm(...shared.map((file) => ({ path: file, flags: "r" }))), name, shared);
    }
  });
});

test("what a VM could write is free when it has ended", async () => {
  await withFiles(async (vm, path) => {
    const guard = new DiskGuard();
    const disk = { path: path("disk"), flags: "r+" };
    const first = vm(disk);
    await guard.admit(first, "first", []);
    await guard.admit(first, "first", []);
    await assert.rejects(guard.admit(vm(disk), "second", []), { code: "disk_shared" });
    first.die();
    await turn();
    await guard.admit(vm(disk), "third", []);
  });
});

test("a VM that has ended is not admitted", async () => {
  await assert.rejects(new DiskGuard().admit(new FakeVm(), "gone", []), { code: "ENOENT" });
});
