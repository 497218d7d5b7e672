/** A worker that asks for /healthz at a steady pace, on a thread that has nothing else to do. */
import { Agent, get } from "node:http";
import { parentPort, workerData } from "node:worker_threads";
import { z } from "zod";

/** From the answer of one check to the next. */
const paceMs = 25;
const deadlineMs = 30_000;

const { url } = z.object({ url: z.url() }).parse(workerData);
const agent = new Agent({ keepAlive: true, maxSockets: 1 });

function ask(): Promise<void> {
  return new Promise((resolve, reject) => {
    const request = get(`${url}/healthz`, { agent, timeout: deadlineMs }, (response) => {
      response.resume();
      response.once("end", () => {
        if (response.statusCode === 200) resolve();
        else reject(new Error(`healthz answered ${response.statusCode}`));
      });
    });
    request.once("timeout", () => request.destroy(new Error("healthz did not answer")));
    request.once("error", reject);
  });
}

const times: number[] = [];
let isOver = false;
parentPort?.once("message", () => {
  isOver = true;
});
while (!isOver) {
  const asked = performance.now();
  await ask();
  times.push(performance.now() - asked);
  await new Promise((resolve) => setTimeout(resolve, paceMs));
}
agent.destroy();
parentPort?.postMessage(times);
