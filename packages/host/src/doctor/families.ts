import type { CheckFamily } from "./check.ts";
import { daemonChecks } from "./daemon.ts";
import { engineChecks } from "./engines.ts";
import { imageChecks } from "./images.ts";
import { machineChecks } from "./machine.ts";
import { memoryChecks } from "./memory.ts";
import { networkChecks } from "./network.ts";
import { remainsChecks } from "./remains.ts";
import { storageChecks } from "./storage.ts";

/** All that `forkd doctor` looks at. */
export const families: readonly CheckFamily[] = [
  { name: "machine", checks: machineChecks },
  { name: "engines", checks: engineChecks },
  { name: "images", checks: imageChecks },
  { name: "memory", checks: memoryChecks },
  { name: "network", checks: networkChecks },
  { name: "storage", checks: storageChecks },
  { name: "daemon", checks: daemonChecks },
  { name: "remains", checks: remainsChecks },
];
