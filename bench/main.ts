/** `npm run bench -- branch|chain|exec|firecracker|load|pack|spawn [OPTIONS]`; see docs/bench.md. */
import { toForkdError } from "@forkd/api";
import { failUsage } from "../test/runner/args.ts";
import { benchBranch } from "./branch.ts";
import { benchChain } from "./chain.ts";
import { benchExec } from "./exec.ts";
import { benchFirecracker } from "./firecracker.ts";
import { benchLoad } from "./load.ts";
import { benchPack } from "./pack.ts";
import { benchSpawn } from "./spawn.ts";

const benches = {
  branch: benchBranch,
  chain: benchChain,
  exec: benchExec,
  firecracker: benchFirecracker,
  load: benchLoad,
  pack: benchPack,
  spawn: benchSpawn,
};

const [name = "", ...args] = process.argv.slice(2);
const names = Object.keys(benches).join("|");
const usage = `npm run bench -- ${names} [OPTIONS]; see docs/bench.md`;
if (process.argv.slice(2).includes("--help")) {
  console.log(`usage: ${usage}`);
  process.exit(0);
}
const bench = Object.hasOwn(benches, name) ? benches[name as keyof typeof benches] : undefined;
if (bench === undefined) failUsage(usage, name === "" ? "which one?" : `no benchmark "${name}"`);
try {
  process.exitCode = await bench(args);
} catch (error) {
  if (error instanceof Error && "code" in error && `${error.code}`.startsWith("ERR_PARSE_ARGS_")) {
    failUsage(usage, error.message);
  }
  const problem = toForkdError(error);
  console.error(`error: ${problem.message} (${problem.code})\nhint: ${problem.hint}`);
  process.exitCode = 1;
}
