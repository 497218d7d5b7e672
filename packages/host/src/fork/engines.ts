import { delimiter, join } from "node:path";
import { type EngineName, ForkdError, toForkdError } from "@forkd/api";
import type { DataPaths } from "../config/data-paths.ts";
import type { EngineChoice, EngineSettings } from "../config/engine-settings.ts";
import { VmmBroker } from "../engine/broker.ts";
import type { BootKernel, Engine, EngineProbe } from "../engine/engine.ts";
import { FirecrackerEngine, type FirecrackerPrograms } from "../engine/firecracker/engine.ts";
import { jailDefaults } from "../engine/firecracker/jail.ts";
import { QemuEngine } from "../engine/qemu/engine.ts";
import { findInstalledFirecracker, locateFirecracker } from "../store/firecracker.ts";
import { FlatImages } from "./flat-images.ts";

/** An engine, and what it can do for a kernel. */
export interface ChosenEngine {
  readonly engine: Engine;
  readonly probe: EngineProbe;
}

export interface ParentNeeds {
  readonly kernel: BootKernel;
}

/** The VMMs of this host. */
export interface Engines {
  /** What froze a parent runs its children. Throws engine_unavailable. */
  get(name: EngineName): Engine;
  /** For a new parent. Throws engine_unavailable with what was tried. */
  choose(needs: ParentNeeds): Promise<ChosenEngine>;
}

/** One engine for all, for tests. */
export function onlyEngine(engine: Engine): Engines {
  return {
    get: (name) => {
      if (name === engine.name) return engine;
      throw new ForkdError("engine_unavailable", `this host runs no ${name}`);
    },
    choose: async ({ kernel }) => ({ engine, probe: await engine.probe(kernel) }),
  };
}

export function openEngines(
  paths: DataPaths,
  settings: EngineSettings,
  path: string | undefined,
): Engines {
  const broker = new VmmBroker();
  const { kvmTrialMs } = settings;
  const flat = new FlatImages(join(paths.cacheDir, "flat"));
  const engines: Readonly<Record<EngineName, Engine>> = {
    qemu: new QemuEngine({ cacheDir: paths.cacheDir, kvmTrialMs, broker }),
    firecracker: new FirecrackerEngine({
      find: () => findPrograms(paths, settings, path),
      jail: settings.jailed ? jailDefaults : null,
      cacheDir: paths.cacheDir,
      cpuTemplate: settings.cpuTemplate,
      kvmTrialMs,
      flatten: (image) => flat.flatten(image),
      broker,
    }),
  };
  return preferEngines(engines, settings.choice);
}

/** All engines, and which of them a new parent gets. */
export function preferEngines(
  engines: Readonly<Record<EngineName, Engine>>,
  choice: EngineChoice,
): Engines {
  const chosen = async (name: EngineName, { kernel }: ParentNeeds): Promise<ChosenEngine> => ({
    engine: engines[name],
    probe: await engines[name].probe(kernel),
  });
  return {
    get: (name) => engines[name],
    choose: async (needs) => {
      if (choice !== "auto") return await chosen(choice, needs);
      try {
        return await chosen("firecracker", needs);
      } catch (error) {
        const { code, message } = toForkdError(error);
        if (code !== "engine_unavailable") throw error;
        return withReason(await chosen("qemu", needs), message);
      }
    },
  };
}

function withReason({ engine, probe }: ChosenEngine, reason: string): ChosenEngine {
  return { engine, probe: { ...probe, reasons: [...probe.reasons, reason] } };
}

/** What the operator named, else what is installed, else the first on PATH. */
export async function findPrograms(
  paths: DataPaths,
  settings: EngineSettings,
  path = "",
): Promise<FirecrackerPrograms | null> {
  if (settings.firecracker !== null) return (await locateFirecracker(settings.firecracker)) ?? null;
  const installed = await findInstalledFirecracker(paths);
  if (installed !== undefined) return installed;
  for (const dir of path.split(delimiter).filter((entry) => entry !== "")) {
    const found = await locateFirecracker(join(dir, "firecracker"));
    if (found !== undefined) return found;
  }
  return null;
}
