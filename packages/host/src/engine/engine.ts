import type { Duplex } from "node:stream";
import type { EngineName, IsolationTier } from "@forkd/api";
import type { ProcessIdentity } from "../linux/proc.ts";

/** How a guest's instructions run. */
export type Accelerator = "kvm" | "tcg";

/** What must be equal between the VM that was frozen and every VM that is restored from it. */
export interface Machine {
  readonly accel: Accelerator;
  /** The engine's name of the CPU model. */
  readonly cpu: string;
  readonly vcpus: number;
  readonly memoryMib: number;
  /** Whether it has a network card, which needs no network to be there. */
  readonly nic: boolean;
}

/** What an engine can do on this host, found out by trying. */
export interface EngineProbe {
  readonly engine: EngineName;
  readonly version: string;
  readonly accel: Accelerator;
  readonly isolation: IsolationTier;
  /** Sentences for people: what was tried and why a better choice was not taken. */
  readonly reasons: readonly string[];
}

/** A guest kernel with its initramfs; absolute paths. */
export interface BootKernel {
  readonly vmlinuz: string;
  /** The same one uncompressed, for engines that boot no other; absent or null: not known. */
  readonly vmlinux?: string | null;
  readonly initrd: string;
}

/** A file that is a disk, or what changed of the disk below it. */
export interface DiskLayer {
  readonly file: string;
  readonly format: "raw" | "qcow2";
}

/**
 * What an engine makes scratch disks of. `layers`: a VM writes to the last of a chain of files, and
 * a capture puts another one on it. `file`: each VM has a whole raw file of its own, of which a
 * capture takes a copy.
 */
export type ScratchKind = "layers" | "file";

/** What a child's scratch disk begins with; an engine takes what is of its own kind. */
export type ChildScratch =
  | {
      readonly kind: "layers";
      /** Oldest first. The last, a qcow2, must not exist: it is made, and this VM's alone. */
      readonly layers: readonly DiskLayer[];
    }
  | {
      readonly kind: "file";
      /** A raw file, of which the VM gets a copy; it is never written. */
      readonly frozen: string;
    };

/** A parent to boot. Its RAM lives in `memoryFile`, which is complete once the VM is stopped. */
export interface BootSpec {
  readonly workDir: string;
  readonly machine: Machine;
  readonly kernel: BootKernel;
  readonly rootImage: string;
  /** Created sparse, of the RAM's size. */
  readonly memoryFile: string;
  /** Bytes of the overlay's upper layer; null leaves the guest's default. */
  readonly upperMib: number | null;
  /**
   * A raw file with an empty ext4, which the upper layer is on then; null has it in RAM. It may be
   * elsewhere while the VM runs, and is there again, as it was left, once the state is saved.
   */
  readonly scratch: DiskLayer | null;
}

/**
 * Pages that lie over an image. `file` is sparse and holds bytes at the offsets that they have in
 * the RAM; `extents` says which of them count, as (u64 offset, u64 length) pairs, little-endian,
 * sorted, whole pages, apart from each other. A hole inside an extent is zeros.
 */
export interface MemoryOverlay {
  readonly file: string;
  readonly extents: string;
}

/**
 * A guest's RAM at one instant, as files that never change: `base` is all of it, the overlay what
 * differs. Any number of children map them, and share what they do not write.
 */
export interface MemoryImage {
  readonly base: string;
  readonly overlay: MemoryOverlay | null;
}

/** A network namespace that a VMM runs in, with the tap that its card is on. */
export interface VmNetwork {
  /** The namespace's file, such as /run/netns/NAME. */
  readonly netns: string;
  /** A tap device of that namespace; nobody else has it open. */
  readonly tap: string;
}

/** When a restore of any engine is given up, ms: the loading of a state, after a disk's copy. */
export const restoreMaxMs = 120_000;

/** A child to restore; its image is mapped copy-on-write. */
export interface RestoreSpec {
  readonly workDir: string;
  readonly machine: Machine;
  readonly rootImage: string;
  readonly memory: MemoryImage;
  readonly vmstateFile: string;
  /** Null if the parent had no such disk: devices must be equal. */
  readonly scratch: ChildScratch | null;
  /** The VMM ends when this process does: for owners that keep no records. */
  readonly dieWithParent: boolean;
  /** cgroup.procs files: the VMM is in these groups before it runs. */
  readonly cgroups: readonly string[];
  /** For a machine with a card; null leaves the card without a network. */
  readonly network: VmNetwork | null;
  /** Aborts when the VM is not wanted any more: the restore throws its reason then. */
  readonly signal?: AbortSignal;
}

/** A VM that some process of this host started and that runs on; what its owner kept of it. */
export interface AdoptSpec {
  readonly process: ProcessIdentity;
  readonly workDir: string;
}

/**
 * How a VMM ended. `stopped`: because this side asked. Of an adopted VMM nobody learns the exit
 * code or the signal: both are null.
 */
export interface VmEnd {
  readonly stopped: boolean;
  readonly exitCode: number | null;
  readonly signal: string | null;
  /**
   * Set when the guest ended it, in the engine's words: `guest-shutdown`, `guest-reset`. Null when
   * it did not, and when nobody was there to see it.
   */
  readonly guestOff: string | null;
  /** The last words of the VMM, for messages. */
  readonly log: string;
}

/** Milliseconds since the restore began. */
export interface RestoreTimings {
  readonly processMs: number;
  readonly restoredMs: number;
}

/** A disk whose writes go elsewhere from the captured instant on. */
export interface DiskPivot {
  readonly kind: "pivot";
  /** The engine's name of what the disk writes to until now. */
  readonly node: string;
  /** The engine's name of what takes its writes from then on; made before the capture. */
  readonly overlay: string;
}

/** A disk that is copied, holes and all, as it is at the captured instant. */
export interface DiskCopy {
  readonly kind: "copy";
  /** A new file, which must not exist. */
  readonly to: string;
  /** The size of the disk. */
  readonly bytes: number;
}

/** What a capture does with a disk. */
export type DiskCapture = DiskPivot | DiskCopy;

/** A layer of a running VM's scratch disk. Numbers grow with age, and are never given twice. */
export interface NumberedLayer extends DiskLayer {
  readonly number: number;
}

/** The layered scratch disk of a running VM. Its methods throw engine_failed, disk_full. */
export interface LayeredScratch {
  readonly kind: "layers";
  /** The number of the layer that is written now: at the restore, the place of the last one. */
  top(): Promise<number>;
  /** Makes the file of a layer and has it ready to take the writes of `under` in a capture. */
  add(
    layer: NumberedLayer,
    options: { readonly under: number; readonly bytes: number },
  ): Promise<DiskPivot>;
  /** Lets go of layers that are not part of the disk, whether they were added or not. */
  drop(layers: readonly number[]): Promise<void>;
  /** Pulls all that lies between `base` and the top into the top, while the guest goes on. */
  merge(range: { readonly top: number; readonly base: number }): Promise<void>;
}

/** Of an engine whose scratch disks are files: whether there is one or none, a capture says. */
export interface FileScratch {
  readonly kind: "file";
}

/** How a capture takes the scratch disk of a running VM, if it has one. */
export type ScratchDisk = LayeredScratch | FileScratch;

/** New files, none of which may exist. */
export interface CaptureFiles {
  readonly vmstate: string;
  /** A MemoryOverlay over the image that the VM was restored from, or over zeros. */
  readonly pages: string;
  readonly extents: string;
}

/** How a running VM is written down at one instant. */
export interface CaptureSpec {
  /** `stopped`: all is copied while it stands; `live`: most is copied before, while it runs. */
  readonly mode: "stopped" | "live";
  /** The whole RAM instead of what differs from `image`: the pages' file is an image of its own. */
  readonly all: boolean;
  /** What the VM was restored from. */
  readonly image: MemoryImage;
  readonly files: CaptureFiles;
  /** Pivots for an engine whose scratch disks are layers, copies for one where they are files. */
  readonly disks: readonly DiskCapture[];
  /** Rather than stand for longer, the VM runs on and the capture fails; null: no such bound. */
  readonly maxPauseMs: number | null;
  /** Whether the files are on the disk, not only in its cache, when the capture is done. */
  readonly durable: boolean;
  /**
   * Called when all that takes time is done, before the VM is stopped: what is held here stands
   * from then on. `afterResume` is called once after it, whatever happened, when the VM runs again.
   */
  beforeStop(): Promise<void>;
  afterResume(): Promise<void>;
  /**
   * Called, maybe twice, when the disks' writes have gone elsewhere: also when the capture fails
   * after that, since it stays so. Not called: they go where they went before.
   */
  onPivot(): void;
  readonly signal?: AbortSignal;
}

export interface CaptureResult {
  /** From the engine's own events. */
  readonly pauseMs: number;
  /** From the end of `beforeStop` to the resume: what was held stood for that long, and a little. */
  readonly heldMs: number;
  /** How often pages were looked for, the pause included. */
  readonly rounds: number;
  /** Copied while the VM stood. */
  readonly dirtyBytes: number;
  /** All bytes that were read from the VM. */
  readonly copiedBytes: number;
  /** What the extents hold. */
  readonly pagesBytes: number;
  readonly extents: number;
}

/**
 * One virtual machine.
 *
 * Every method throws engine_failed with the VMM's last words, or deadline_exceeded. After the VMM
 * has ended, `ended` is resolved and every method but `stop` throws.
 */
export interface Vm {
  readonly process: ProcessIdentity;
  readonly ended: Promise<VmEnd>;
  readonly scratch: ScratchDisk;
  /**
   * Whether the agent's channel outlasts a pause. Where it does not, it ends with a ChannelReset
   * when the guest runs again, before a capture's `afterResume`.
   */
  readonly keepsChannel: boolean;
  /** Connects to the agent's channel; one connection at a time. */
  openChannel(): Promise<Duplex>;
  /** Stops the virtual CPUs at one instant. Idempotent. */
  pause(): Promise<void>;
  /** Starts or goes on. Idempotent. */
  resume(): Promise<void>;
  /** Writes CPU and device state, without RAM, of a paused VM to a new file. */
  saveState(path: string): Promise<void>;
  /**
   * Writes down memory, CPU and devices of a running, restored VM, all of one instant; it runs on.
   * One at a time.
   *
   * When it throws, the VM runs or is dead, never paused, and no file is left. Throws
   * branch_budget_exceeded, live_unsupported, disk_full, engine_failed, or the signal's reason.
   */
  capture(spec: CaptureSpec): Promise<CaptureResult>;
  /** Ends the VMM at once and waits until it is gone. Idempotent. */
  stop(): Promise<VmEnd>;
}

export interface BootedVm extends Vm {
  /** The end of what the guest wrote to its console, for messages. */
  consoleTail(): string;
}

export interface RestoredVm extends Vm {
  readonly timings: RestoreTimings;
}

/**
 * A virtual machine monitor. Implementations share everything else: agent, store, identity.
 * test/conformance/engine-suite.ts is this contract as tests.
 */
export interface Engine {
  readonly name: EngineName;
  readonly scratch: ScratchKind;
  /** The installed version, which saved state is bound to. Throws engine_unavailable. */
  version(): Promise<string>;
  /** Tries what works here. Throws engine_unavailable when nothing does. */
  probe(kernel: BootKernel): Promise<EngineProbe>;
  /** The machine for a new parent on this host. */
  machine(
    probe: EngineProbe,
    size: { readonly memoryMib: number; readonly vcpus: number },
  ): Machine;
  /** Starts a VM from its kernel; it runs when this resolves. Leaves no process when it throws. */
  boot(spec: BootSpec): Promise<BootedVm>;
  /**
   * Loads a frozen VM; it is paused when this resolves. Is given up after {@link restoreMaxMs}, and
   * leaves no process when it throws.
   */
  restore(spec: RestoreSpec): Promise<RestoredVm>;
  /**
   * Takes over a running VM, in whatever state it is. Throws engine_failed when that very process
   * is gone or does not answer; it is left as it is then.
   */
  adopt(spec: AdoptSpec): Promise<Vm>;
}
