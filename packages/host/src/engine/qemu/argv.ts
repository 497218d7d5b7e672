import { frozenMac } from "../card.ts";
import type { BootSpec, DiskLayer, Machine, RestoreSpec, VmNetwork } from "../engine.ts";
import { layersOf, scratchArgs } from "./scratch.ts";

/** Names inside the work directory, which is the VMM's current directory. */
export const agentSocketName = "agent.sock";
export const qmpSocketName = "qmp.sock";
export const captureSocketName = "capture.sock";

/** Descriptors that the VMM starts with, see VmmProcess. */
const qmpFd = 3;
const consoleFd = 4;
export const vmstateFd = 4;

const program = "qemu-system-x86_64";

/**
 * Translated code of one TCG guest, MiB. What a forked child runs before its first answer
 * translates to a few MiB; QEMU's default is a quarter of the host's RAM bound, reserved only.
 */
const translationCacheMib = 32;

interface Hardware {
  readonly machine: Machine;
  readonly rootImage: string;
  /** The object that is the RAM. */
  readonly memory: string;
  readonly scratch: readonly DiskLayer[];
  readonly network: VmNetwork | null;
}

/** The devices and the machine: equal for the parent and all its children, or no state loads. */
function machineArgs(hardware: Hardware): string[] {
  const { machine, rootImage, memory, scratch } = hardware;
  return [
    ...["-M", "microvm,rtc=on,isa-serial=on,memory-backend=mem,suppress-vmdesc=on"],
    ...["-accel", machine.accel === "kvm" ? "kvm" : `tcg,tb-size=${translationCacheMib}`],
    ...["-cpu", machine.cpu],
    ...["-smp", String(machine.vcpus)],
    ...["-m", String(machine.memoryMib)],
    ...["-object", memory],
    ...[
      "-drive",
      `if=none,id=root,file=${escapeComma(rootImage)},format=raw,readonly=on,file.locking=off`,
    ],
    ...["-device", "virtio-blk-device,drive=root"],
    ...scratchArgs(scratch),
    ...["-chardev", `socket,id=agent,path=${agentSocketName},server=on,wait=off`],
    ...["-device", "virtio-serial-device,max_ports=2"],
    ...["-device", "virtserialport,chardev=agent,name=dev.forkd.agent"],
    ...(machine.nic ? nicArgs(hardware.network) : []),
    ...["-nodefaults", "-no-user-config", "-nographic", "-no-reboot"],
    ...["-global", "migration.send-configuration=off"],
    ...["-mon", "chardev=qmp,mode=control"],
    ...["-chardev", `socket,id=qmp2,path=${qmpSocketName},server=on,wait=off`],
    ...["-mon", "chardev=qmp2,mode=control"],
  ];
}

/**
 * The card is equal with and without a network, or its state would not load: so the tap has no
 * virtio headers, which a card without a backend has not either. What the guest would announce
 * when it wakes is the name of the one that it is a fork of: it announces nothing.
 */
function nicArgs(network: VmNetwork | null): string[] {
  const device = `virtio-net-device,mac=${frozenMac},guest_announce=off`;
  if (network === null) return ["-device", device];
  const tap = `tap,id=net,ifname=${network.tap},script=no,downscript=no,vnet_hdr=off`;
  return ["-netdev", tap, "-device", `${device},netdev=net`];
}

/** QEMU's option syntax doubles a comma inside a value. */
function escapeComma(path: string): string {
  return path.replaceAll(",", ",,");
}

/**
 * What a child is told to take its RAM from. No file can be here: forkd-ram opens the image in its
 * place, and a VMM without forkd-ram ends at once instead of running on an empty RAM.
 */
const layeredRam = "/dev/null/forkd-ram";

function memoryObject(machine: Machine, path: string, share: "on" | "off"): string {
  const file = escapeComma(path);
  return `memory-backend-file,id=mem,size=${machine.memoryMib}M,mem-path=${file},share=${share}`;
}

/** What any guest of ours boots with. */
const commonWords = [
  "console=ttyS0",
  "quiet",
  "reboot=t",
  "panic=-1",
  "random.trust_cpu=on",
  // A child that was frozen for a day is no soft lockup, and an idle one need not wake to say so.
  "nowatchdog",
  "forkd.root=vda",
];

/**
 * Under emulation: trust the counter, with the frequency that the host measured, since without it
 * the kernel ticks 250 times a second; and no work-arounds for the speculation of a processor that
 * does not speculate, each of which is more code to translate.
 */
function emulationWords(tscKhz: number): string[] {
  return ["tsc=reliable", `tsc_early_khz=${tscKhz}`, "no_timer_check", "mitigations=off"];
}

/** Kernel command line of a parent. `tscKhz` is null under hardware virtualisation. */
export function kernelCommandLine(spec: BootSpec, tscKhz: number | null): string {
  const words = [...commonWords, ...(tscKhz === null ? [] : emulationWords(tscKhz))];
  if (spec.scratch !== null) words.push("forkd.scratch=vdb");
  if (spec.upperMib !== null) words.push(`forkd.upper_mib=${spec.upperMib}`);
  return words.join(" ");
}

/** A parent: kernel and console given, RAM shared with its file. Sockets: QMP, console. */
export function bootArgv(spec: BootSpec, tscKhz: number | null): string[] {
  const memory = memoryObject(spec.machine, spec.memoryFile, "on");
  const scratch = spec.scratch === null ? [] : [spec.scratch];
  return [
    program,
    ...machineArgs({ ...spec, memory, scratch, network: null }),
    ...["-chardev", `socket,id=qmp,fd=${qmpFd}`],
    ...["-chardev", `socket,id=console,fd=${consoleFd}`, "-serial", "chardev:console"],
    ...["-kernel", spec.kernel.vmlinuz, "-initrd", spec.kernel.initrd],
    ...["-append", kernelCommandLine(spec, tscKhz)],
  ];
}

/** What forkd-ram is told, see native/forkd-ram.c. */
export function ramEnv({ machine, memory }: RestoreSpec): Record<string, string> {
  const overlay: Record<string, string> =
    memory.overlay === null
      ? {}
      : { FORKD_RAM_OVERLAY: memory.overlay.file, FORKD_RAM_EXTENTS: memory.overlay.extents };
  const bytes = machine.memoryMib * 1024 * 1024;
  return { FORKD_RAM_BASE: memory.base, FORKD_RAM_BYTES: String(bytes), ...overlay };
}

/**
 * A child: no kernel (it would be written over the RAM image), RAM private, state awaited.
 * Socket: QMP, which listens; file: the state, on vmstateFd.
 */
export function restoreArgv(spec: RestoreSpec): string[] {
  const memory = memoryObject(spec.machine, layeredRam, "off");
  return [
    program,
    ...machineArgs({ ...spec, memory, scratch: layersOf(spec.scratch) }),
    ...["-chardev", `socket,id=qmp,fd=${qmpFd},server=on,wait=off`],
    ...["-serial", "null"],
    // A monitor takes one client; this one is for captures, the others are the owner's.
    ...["-chardev", `socket,id=qmp3,path=${captureSocketName},server=on,wait=off`],
    ...["-mon", "chardev=qmp3,mode=control"],
    // -S: it stays paused when the state is loaded.
    ...["-S", "-incoming", "defer"],
  ];
}
