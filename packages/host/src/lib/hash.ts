import { Worker } from "node:worker_threads";

/** SHA-256 of a file's content, hex. Reads and hashes in a worker thread. */
export function sha256File(path: string): Promise<string> {
  const extension = import.meta.url.endsWith(".ts") ? "ts" : "js";
  const worker = new Worker(new URL(`./hash-worker.${extension}`, import.meta.url), {
    workerData: path,
  });
  return new Promise((resolve, reject) => {
    worker.once("message", resolve);
    worker.once("error", reject);
  });
}
