/**
 * `npm run crowd`: 200 commands at once on 20 sandboxes, each with its own stream, a quarter of
 * them with clients that never read. Prints what the daemon's memory did meanwhile.
 */
import { readFileSync } from "node:fs";
import { ensureBaked } from "./helpers/baked.ts";
import { startDaemon } from "./helpers/daemon.ts";
import { makeDataDir } from "./helpers/data-dir.ts";
import { execCrowd } from "./helpers/exec-crowd.ts";
import { readArgs } from "./runner/args.ts";

readArgs("npm run crowd", { options: {} });
const crowd = { sandboxes: 20, execs: 10, bytes: 256 * 1024 };
const baked = await ensureBaked();
const data = await makeDataDir("exec-crowd", baked);
const daemon = await startDaemon(data.path);
const memoryKib = (name: string): number => {
  const status = readFileSync(`/proc/${daemon.process.pid}/status`, "utf8");
  return Number(new RegExp(`^${name}:\\s+(\\d+) kB$`, "m").exec(status)?.[1]);
};
try {
  const before = memoryKib("VmRSS");
  const began = performance.now();
  const { url, token } = daemon;
  const count = await execCrowd(baked.tag, crowd, { baseUrl: url, token });
  const seconds = ((performance.now() - began) / 1000).toFixed(1);
  console.log(`${count} commands on ${crowd.sandboxes} sandboxes in ${seconds} s, forks included`);
  console.log(`the daemon's memory: ${before} KiB before, ${memoryKib("VmHWM")} KiB at most`);
} finally {
  await daemon.killAll();
  await data.assertNothingLeft();
  await data[Symbol.asyncDispose]();
}
