import { stat } from "node:fs/promises";
import { fixLeaks, type LeakReport, listLeaks } from "../fork/leaks/leaks.ts";
import { LimitKeeper } from "../fork/limits.ts";
import { type Check, type Finding, fail, pass, skip, warn } from "./check.ts";
import type { DoctorScope } from "./scope.ts";

/** Both make and remove control groups below the same directory: one after the other. */
export const remainsChecks: readonly Check[] = [
  { name: "cgroup", run: cgroup },
  { name: "leaks", run: leaks },
];

/** What can be enforced, by a trial group. */
async function cgroup({ paths }: DoctorScope): Promise<Finding> {
  if ((await stat(paths.dataDir).catch(() => undefined)) === undefined) {
    return skip(`${paths.dataDir} is not there yet`, "forkd doctor --fix --only data-dir");
  }
  const keeper = new LimitKeeper(paths);
  try {
    const support = await keeper.support();
    const refused = support.filter(({ reason }) => reason !== null);
    if (refused.length === 0) return pass("every limit of a sandbox is enforced");
    const words = refused.map(({ limit, reason }) => `${limit} is not enforced: ${reason}`);
    const hint = "mount | grep cgroup  # needs root, and cgroup v2 or the v1 controllers";
    const all = refused.length === support.length;
    return (all ? fail : warn)(words.join("; "), hint);
  } finally {
    await keeper.close();
  }
}

async function leaks({ paths }: DoctorScope): Promise<Finding> {
  const found = await listLeaks(paths);
  const [first] = found;
  if (first === undefined) return pass("nothing is left behind");
  const detail = `${found.length} left behind, such as ${first.kind} ${first.what}: ${first.why}`;
  return warn(detail, "forkd leaks --fix", async () => told(await fixLeaks(paths)));
}

function told(reports: readonly LeakReport[]): string {
  const fixed = reports.filter((report) => report.fixed !== null);
  const words = fixed.map((report) => `${report.kind} ${report.what}: ${report.fixed}`);
  return words.length === 0 ? "nothing could be removed" : words.join("; ");
}
