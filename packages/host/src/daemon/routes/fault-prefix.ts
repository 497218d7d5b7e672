import { toForkdError } from "@forkd/api";

/** Puts words in front of failures that are ours (500), and lets the client's pass as they are. */
export async function prefixFaults<T>(prefix: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (thrown) {
    const error = toForkdError(thrown);
    throw error.status === 500 ? error.within(prefix) : error;
  }
}
