import { limits } from "@forkd/api";
import { Option } from "commander";
import { parseTag } from "../bake.ts";
import { openClient, spawnTimeoutMs } from "../daemon.ts";
import { exitCodes } from "../exit.ts";
import { usage } from "../flags.ts";
import {
  addSpawnOptions,
  parseCount,
  parseLimits,
  parseNetwork,
  parseScratch,
} from "../spawn-options.ts";
import { defineVerb } from "../verb.ts";

const none = "—";

export const spawnVerb = defineVerb({
  describe: (command) =>
    addSpawnOptions(
      command.name("spawn").description("fork sandboxes that the daemon keeps running"),
    )
      .option("-n, --n <count>", `how many, 1 to ${limits.spawnCountMax}`, "1")
      .addOption(new Option("--prewarm", "read the memory ahead of its first use").hideHelp())
      .addOption(new Option("--min-isolation <tier>").choices(["vm", "vm-emulated"]).hideHelp()),
  parse: ({ flags }) => {
    if (flags.on("hugepages") && !flags.on("liveFork")) {
      throw usage("--hugepages needs --live-fork");
    }
    return {
      snapshot_tag: parseTag(flags),
      n: parseCount(flags),
      ...parseNetwork(flags),
      ...parseLimits(flags),
      ...parseScratch(flags),
      prewarm: flags.on("prewarm"),
      live_fork: flags.on("liveFork"),
      hugepages: flags.on("hugepages"),
      ...(flags.text("minIsolation") === "vm" ? { min_isolation: "vm" as const } : {}),
    };
  },
  run: async ({ settings, output, signal }, body) => {
    const client = await openClient(settings);
    const sandboxes = await client.createSandboxes({ body, timeoutMs: spawnTimeoutMs, signal });
    if (output.json) output.data(sandboxes);
    else {
      for (const { id, guest_addr: address, netns } of sandboxes) {
        output.line(`✓ ${id}  guest=${address}  netns=${netns ?? none}`);
      }
    }
    return exitCodes.ok;
  },
});
