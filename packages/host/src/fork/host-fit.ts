import { type EngineName, toForkdError } from "@forkd/api";
import type { Manifest } from "../store/manifest.ts";
import type { EngineVersions } from "./engine-versions.ts";
import type { Engines } from "./engines.ts";

/** Whether this host has what wrote a snapshot: only that loads it. */
export class HostFit {
  readonly #engines: Engines;
  readonly #kept: EngineVersions | null;
  readonly #versions = new Map<EngineName, Promise<string>>();

  /** `kept`: what other runs were told; null when every run asks. */
  constructor(engines: Engines, kept: EngineVersions | null = null) {
    this.#engines = engines;
    this.#kept = kept;
  }

  /** Why it cannot be forked here, for lists; undefined when nothing is known against it. */
  async unfit({ engine }: Manifest): Promise<string | undefined> {
    const needs = `it needs ${engine.name} ${engine.version}`;
    try {
      const version = await this.#versionOf(engine.name);
      return version === engine.version ? undefined : `${needs}, this host has ${version}`;
    } catch (error) {
      const { code } = toForkdError(error);
      return code === "engine_unavailable" ? `${needs}, which this host has not` : undefined;
    }
  }

  /** Asked once: a VMM that is replaced under a daemon is known from its next start on. */
  #versionOf(name: EngineName): Promise<string> {
    const known = this.#versions.get(name);
    if (known !== undefined) return known;
    const ask = async (): Promise<string> => await this.#engines.get(name).version();
    const asking = this.#kept === null ? ask() : this.#kept.get(name, ask);
    this.#versions.set(name, asking);
    asking.catch(() => this.#versions.delete(name));
    return asking;
  }
}
