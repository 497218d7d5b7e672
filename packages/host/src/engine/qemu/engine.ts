import { VmmBroker } from "../broker.ts";
import type {
  AdoptSpec,
  BootedVm,
  BootKernel,
  BootSpec,
  Engine,
  EngineProbe,
  Machine,
  RestoredVm,
  RestoreSpec,
  Vm,
} from "../engine.ts";
import { adoptQemu } from "./adopt.ts";
import { bootQemu } from "./boot.ts";
import { probeQemu, qemuVersion } from "./probe.ts";
import { restoreQemu } from "./restore.ts";

/**
 * Under emulation the x86-64-v2 instructions and `arat`, without which Linux thinks that the APIC's
 * timer stops in idle and ticks 250 times a second. Not `max`: its five-level page tables and wider
 * registers are a fifth more code to translate before a child's first answer.
 */
const cpuOf = {
  kvm: "host",
  tcg: "qemu64,+ssse3,+sse4.1,+sse4.2,+popcnt,+cx16,+rdrand,+arat",
} as const;

export interface QemuOptions {
  /** Verdicts of trials are kept here. */
  readonly cacheDir: string;
  /** Until a guest that tries KVM is given up. */
  readonly kvmTrialMs: number;
  /** One of its own when absent. */
  readonly broker?: VmmBroker;
}

/** The QEMU engine: KVM where it works, emulation everywhere else. */
export class QemuEngine implements Engine {
  readonly name = "qemu";
  readonly scratch = "layers";
  readonly #options: QemuOptions;
  readonly #broker: VmmBroker;

  constructor(options: QemuOptions) {
    this.#options = options;
    this.#broker = options.broker ?? new VmmBroker();
  }

  version(): Promise<string> {
    return qemuVersion();
  }

  probe(kernel: BootKernel): Promise<EngineProbe> {
    return probeQemu(kernel, this.#options);
  }

  machine(
    probe: EngineProbe,
    size: { readonly memoryMib: number; readonly vcpus: number },
  ): Machine {
    return { accel: probe.accel, cpu: cpuOf[probe.accel], nic: true, ...size };
  }

  boot(spec: BootSpec): Promise<BootedVm> {
    return bootQemu(spec);
  }

  restore(spec: RestoreSpec): Promise<RestoredVm> {
    return restoreQemu(spec, this.#broker);
  }

  adopt(spec: AdoptSpec): Promise<Vm> {
    return adoptQemu(spec);
  }
}
