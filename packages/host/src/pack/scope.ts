import type { PageWorkers } from "../store/pages.ts";
import type { PackHost } from "./host.ts";
import type { UnpackOrder, UnpackReport } from "./orders.ts";
import type { HostFacts } from "./requires.ts";
import type { UnpackStaging } from "./staging.ts";

/** Where packs are taken to, and what can be run there. */
export interface UnpackHost extends PackHost {
  readonly facts: HostFacts;
}

/** One pack being taken. */
export interface UnpackScope {
  readonly host: UnpackHost;
  readonly order: UnpackOrder;
  readonly staging: UnpackStaging;
  readonly pages: PageWorkers;
}

/** Checks and publishes what was taken, once the whole archive is known to be sound. */
export type Finish = () => Promise<UnpackReport>;
