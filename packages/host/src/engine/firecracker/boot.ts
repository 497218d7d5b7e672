import { keepTail } from "../console.ts";
import type { BootedVm, BootSpec } from "../engine.ts";
import { createRamFile } from "../ram-file.ts";
import type { FirecrackerApi } from "./api.ts";
import { type Card, cardOf, cardRequest } from "./card.ts";
import type { RequestBody } from "./contract.ts";
import { machineCpu } from "./cpu.ts";
import { agentPort, type Provided, vmFiles } from "./files.ts";
import type { FirecrackerHost } from "./host.ts";
import { answered, launch } from "./launch.ts";
import { listenForKnock } from "./sockets.ts";
import { FirecrackerVm } from "./vm.ts";

/** The first that a guest may have (vsock(7)); each Firecracker has its own. */
const guestCid = 3;

/** Starts a parent. It runs when this resolves; its agent knocks when it has booted. */
export async function bootFirecracker(host: FirecrackerHost, spec: BootSpec): Promise<BootedVm> {
  await createRamFile(spec.memoryFile, spec.machine.memoryMib);
  const card = await cardOf(spec.machine, null);
  const started = performance.now();
  const { process, api, journal, diskBytes } = await launch(host, {
    workDir: spec.workDir,
    memoryMib: spec.machine.memoryMib,
    dieWithParent: true,
    cgroups: [],
    card,
    stdout: "us",
    files: bootFiles(spec),
    jailFiles: [],
    disk: spec.scratch && { file: spec.scratch.file, name: vmFiles.scratch, by: "move" },
  });
  const consoleTail = keepTail(process.stdout);
  const knock = await process.orDeath(listenForKnock(journal.dir, journal.note.user), "boot");
  void process.ended.then(() => knock[Symbol.asyncDispose]());
  await answered(process, configure(api, spec, card), "boot");
  await answered(process, startInstance(api, host), "boot");
  process.unref();
  const elapsed = performance.now() - started;
  return new FirecrackerVm({
    host,
    process,
    api,
    journal,
    timings: { processMs: elapsed, restoredMs: elapsed },
    consoleTail,
    booted: {
      memoryFile: spec.memoryFile,
      scratch: spec.scratch && { file: spec.scratch.file, bytes: diskBytes },
      ready: knock.heard,
    },
    running: true,
    fresh: false,
  });
}

/** Firecracker writes the RAM when it is saved; that there is room for its name is known before. */
function bootFiles({ kernel, rootImage }: BootSpec): readonly Provided[] {
  return [
    // Without an uncompressed kernel, Firecracker itself says what it thinks of the other one.
    { file: kernel.vmlinux ?? kernel.vmlinuz, name: vmFiles.kernel },
    { file: kernel.initrd, name: vmFiles.initrd },
    { file: rootImage, name: vmFiles.root },
  ];
}

/** One request after the other: the first that is refused ends it. */
async function configure(api: FirecrackerApi, spec: BootSpec, card: Card | null): Promise<void> {
  const { template, custom } = await machineCpu(spec.machine.cpu);
  await api.call("machineConfig", {
    vcpu_count: spec.machine.vcpus,
    mem_size_mib: spec.machine.memoryMib,
    // A parent is saved as a whole, once.
    track_dirty_pages: false,
    ...(template !== null && { cpu_template: template }),
  });
  if (custom !== null) await api.call("cpuConfig", custom);
  await api.call("bootSource", bootSource(spec));
  await api.call("drive", {
    drive_id: "root",
    path_on_host: vmFiles.root,
    // The initramfs mounts it: the kernel is told nothing of a root.
    is_root_device: false,
    is_read_only: true,
  });
  // After the root: the guest finds disks in the order in which they were named.
  if (spec.scratch !== null) await api.call("drive", scratchRequest);
  if (card !== null) await api.call("networkInterface", cardRequest(card));
  await api.call("vsock", { guest_cid: guestCid, uds_path: vmFiles.vsock });
  await api.call("entropy", {});
}

/** A guest's flushes end in the host's cache, which is the default: `cache_type` Unsafe. */
const scratchRequest: RequestBody<"drive"> = {
  drive_id: "scratch",
  path_on_host: vmFiles.scratch,
  is_root_device: false,
  is_read_only: false,
};

/** It reads and places the whole kernel before it answers: as long as a load, not at once. */
export async function startInstance(api: FirecrackerApi, host: FirecrackerHost): Promise<void> {
  const { loadMs } = host.timeouts;
  await api.call("action", { action_type: "InstanceStart" }, { timeoutMs: loadMs });
}

function bootSource(spec: BootSpec): RequestBody<"bootSource"> {
  return {
    kernel_image_path: vmFiles.kernel,
    initrd_path: vmFiles.initrd,
    boot_args: kernelCommandLine(spec),
  };
}

/** A reset ends Firecracker (`reboot=k`, upstream's docs); devices are found by ACPI. */
export function kernelCommandLine(spec: Pick<BootSpec, "upperMib" | "scratch">): string {
  const { upperMib, scratch } = spec;
  return [
    "console=ttyS0",
    "quiet",
    "reboot=k",
    "panic=-1",
    "pci=off",
    // Its keyboard controller is for the reset; looking for more behind it takes half a second.
    "i8042.noaux",
    "i8042.nomux",
    "i8042.dumbkbd",
    "random.trust_cpu=on",
    // A child that was frozen for a day is no soft lockup, and an idle one need not wake to say so.
    "nowatchdog",
    "forkd.root=vda",
    `forkd.channel=vsock:${agentPort}`,
    ...(scratch === null ? [] : ["forkd.scratch=vdb"]),
    ...(upperMib === null ? [] : [`forkd.upper_mib=${upperMib}`]),
  ].join(" ");
}
