import { ForkdError } from "@forkd/api";
import { run } from "../../lib/exec.ts";
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
import { adoptFirecracker } from "./adopt.ts";
import { bootFirecracker } from "./boot.ts";
import { canHaveCards } from "./card.ts";
import { cpuOf } from "./cpu.ts";
import {
  type FirecrackerHost,
  type FirecrackerTimeouts,
  type Flatten,
  timeoutDefaults,
} from "./host.ts";
import { type JailPolicy, JailUsers } from "./jail.ts";
import { probeFirecracker } from "./probe.ts";
import { restoreFirecracker } from "./restore.ts";
import { capabilitiesOf, formatVersion, parseVersion, refusalOf } from "./version.ts";

const versionTimeoutMs = 10_000;

/** Programs of one release; absolute paths. */
export interface FirecrackerPrograms {
  readonly firecracker: string;
  readonly jailer: string | null;
}

export interface FirecrackerOptions {
  /** Where they are; null when there are none, which may change. */
  readonly find: () => Promise<FirecrackerPrograms | null>;
  /** Null runs VMMs as ourselves, in nothing but their seccomp filters: for development. */
  readonly jail: JailPolicy | null;
  /** What probes remember is kept here. */
  readonly cacheDir: string;
  /** A template's name, or the path of one; null shows guests the host's CPU. */
  readonly cpuTemplate: string | null;
  readonly flatten: Flatten;
  /** One of its own when absent. */
  readonly broker?: VmmBroker;
  readonly kvmDevice?: string;
  /** Until a guest that tries KVM is given up. */
  readonly kvmTrialMs: number;
  readonly timeouts?: Partial<FirecrackerTimeouts>;
}

/** Firecracker, with KVM. */
export class FirecrackerEngine implements Engine {
  readonly name = "firecracker";
  readonly scratch = "file";
  readonly #options: FirecrackerOptions;
  readonly #users: JailUsers | null;
  readonly #broker: VmmBroker;
  #host: Promise<FirecrackerHost> | undefined;
  #cpu: string | undefined;
  #cards = false;

  constructor(options: FirecrackerOptions) {
    this.#options = options;
    this.#broker = options.broker ?? new VmmBroker();
    this.#users = options.jail === null ? null : new JailUsers(options.jail);
  }

  async version(): Promise<string> {
    return formatVersion((await this.#findHost()).version);
  }

  async probe(kernel: BootKernel): Promise<EngineProbe> {
    const host = await this.#findHost();
    this.#cpu ??= await cpuOf(this.#options.cpuTemplate);
    this.#cards = await canHaveCards();
    const { cacheDir, kvmTrialMs, kvmDevice = "/dev/kvm" } = this.#options;
    return await probeFirecracker(host, kernel, { cacheDir, kvmDevice, kvmTrialMs });
  }

  machine(
    probe: EngineProbe,
    size: { readonly memoryMib: number; readonly vcpus: number },
  ): Machine {
    if (this.#cpu === undefined) throw new ForkdError("internal", "a machine needs a probe first");
    return { accel: probe.accel, cpu: this.#cpu, nic: this.#cards, ...size };
  }

  async boot(spec: BootSpec): Promise<BootedVm> {
    return await bootFirecracker(await this.#findHost(), spec);
  }

  async restore(spec: RestoreSpec): Promise<RestoredVm> {
    return await restoreFirecracker(await this.#findHost(), spec);
  }

  async adopt(spec: AdoptSpec): Promise<Vm> {
    return await adoptFirecracker(await this.#findHost(), spec);
  }

  /** A failure is not kept: what was missing may be installed meanwhile. */
  #findHost(): Promise<FirecrackerHost> {
    this.#host ??= this.#inspect().catch((error: unknown) => {
      this.#host = undefined;
      throw error;
    });
    return this.#host;
  }

  /** Throws engine_unavailable when there is to be a jail and cannot be. */
  #jailWith({ jailer }: FirecrackerPrograms): FirecrackerHost["jail"] {
    const { jail } = this.#options;
    if (jail === null || this.#users === null) return null;
    if (process.getuid?.() !== 0) {
      throw new ForkdError("engine_unavailable", "Firecracker's jailer needs root", {
        hint: unjail,
      });
    }
    if (jailer !== null) return { settings: { ...jail, jailer }, users: this.#users };
    throw new ForkdError("engine_unavailable", "Firecracker has no jailer beside it", {
      hint: unjail,
    });
  }

  async #inspect(): Promise<FirecrackerHost> {
    const { find, flatten, timeouts } = this.#options;
    const programs = await find();
    if (programs === null) {
      throw new ForkdError("engine_unavailable", "Firecracker is not installed", { hint: howTo });
    }
    const { firecracker: binary } = programs;
    const jail = this.#jailWith(programs);
    const version = parseVersion(await askVersion(binary));
    const refusal = refusalOf(version);
    if (refusal !== null) throw new ForkdError("engine_unavailable", refusal, { hint: howTo });
    return {
      binary,
      version,
      capabilities: capabilitiesOf(version),
      jail,
      flatten,
      broker: this.#broker,
      timeouts: { ...timeoutDefaults, ...timeouts },
    };
  }
}

const unjail = "install both programs, or for development say --firecracker-unjailed";
const howTo = "install it with: forkd firecracker install --from FILE|URL --sha256 HASH";

async function askVersion(binary: string): Promise<string> {
  try {
    const { stdout } = await run([binary, "--version"], { timeoutMs: versionTimeoutMs });
    return stdout;
  } catch (error) {
    const message = `${binary} does not say its version`;
    throw new ForkdError("engine_unavailable", message, { hint: howTo, cause: error });
  }
}
