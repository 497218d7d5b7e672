import { createHash } from "node:crypto";
import { closeSync, openSync, readSync } from "node:fs";
import { parentPort, workerData } from "node:worker_threads";

const blockBytes = 1024 * 1024;

/** Runs in a worker thread: `workerData` is a path, the one message is its SHA-256 in hex. */
function hashFile(path: string): string {
  const hash = createHash("sha256");
  const block = Buffer.allocUnsafe(blockBytes);
  const fd = openSync(path, "r");
  try {
    for (let count = readSync(fd, block); count > 0; count = readSync(fd, block)) {
      hash.update(block.subarray(0, count));
    }
  } finally {
    closeSync(fd);
  }
  return hash.digest("hex");
}

parentPort?.postMessage(hashFile(String(workerData)));
