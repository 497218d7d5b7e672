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

/** The QEMU engine: KVM where it works, emulation everywhere else. */
export class QemuEngine implements Engine {
  readonly name = "qemu";
  readonly #cacheDir: string;
  readonly #broker: VmmBroker;

  /** Verdicts of trials are kept in `cacheDir`. */
  constructor(cacheDir: string, broker = new VmmBroker()) {
    this.#cacheDir = cacheDir;
    this.#broker = broker;
  }

  version(): Promise<string> {
    return qemuVersion();
  }

  probe(kernel: BootKernel): Promise<EngineProbe> {
    return probeQemu(kernel, this.#cacheDir);
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
