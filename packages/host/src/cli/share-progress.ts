import type { PackProgress } from "../pack/orders.ts";
import type { Output } from "./output.ts";

/** Between two lines of progress: few enough for a log. */
const stepPercent = 10;

/** Tells on standard error how much of something large is done, in steps. */
export function shareOf(output: Output, what: string): (progress: PackProgress) => void {
  let next = stepPercent;
  return ({ doneBytes, totalBytes }) => {
    const percent = totalBytes === 0 ? 100 : Math.floor((doneBytes / totalBytes) * 100);
    if (percent < next) return;
    next = percent - (percent % stepPercent) + stepPercent;
    output.progress(`${what}: ${percent} % of ${Math.ceil(totalBytes / 1024 ** 2)} MiB`);
  };
}
