import { childrenMax, deviceNames, gateway4 } from "../../linux/net/plan.ts";
import { exitCodes } from "../exit.ts";
import { usage } from "../flags.ts";
import {
  deviceName,
  hostNetSettings,
  netOptions,
  parseUser,
  tapAddress,
} from "../netns-options.ts";
import { defineVerb } from "../verb.ts";

const countDefault = 10;

function parseChildren(text: string): number {
  const count = /^\d{1,4}$/.test(text) ? Number(text) : 0;
  if (count >= 1 && count <= childrenMax) return count;
  throw usage(
    `N must be a whole number from 1 to ${childrenMax}, not ${JSON.stringify(text.slice(0, 40))}`,
    "a bridge of Linux has no more ports",
  );
}

export const netnsSetupVerb = defineVerb({
  describe: (command) =>
    command
      .name("setup")
      .argument("[n]", `how many, 1 to ${childrenMax}`, String(countDefault))
      .argument("[user]", "who may open their taps besides root")
      .description(
        "make network namespaces for children, with a bridge that joins them to the host",
      )
      .addOption(netOptions.bridge)
      .addOption(netOptions.bridgeIp)
      .addOption(netOptions.uplink),
  parse: (input) => {
    const [count = String(countDefault), user] = input.args;
    return {
      count: parseChildren(count),
      user: parseUser(user),
      settings: hostNetSettings(input.flags),
    };
  },
  run: async ({ output }, options) => {
    const { provision } = await import("../../linux/net/provision.ts");
    const progress = (message: string): void => output.progress(message);
    const { made, kept } = await provision({ ...options, progress });
    if (output.json) output.data({ made, kept });
    else output.success(`${made} namespaces made, ${kept} were there`);
    return exitCodes.ok;
  },
});

export const netnsTeardownVerb = defineVerb({
  describe: (command) =>
    command
      .name("teardown")
      .argument("[n]", "only namespaces 1 to N; all when absent")
      .description("remove the children's network namespaces; says what it would do without --yes")
      .option("--yes", "do it")
      .option("--include-bridge", "the bridge too, with its rules and what was changed of the host")
      .option("--include-tap", "the tap too that host-tap.sh makes")
      .addOption(netOptions.device),
  parse: (input) => {
    const [count] = input.args;
    return {
      count: count === undefined ? null : parseChildren(count),
      yes: input.flags.on("yes"),
      includeBridge: input.flags.on("includeBridge"),
      tap: input.flags.on("includeTap")
        ? (deviceName(input.flags, "device") ?? deviceNames.tap)
        : null,
    };
  },
  run: async ({ output }, { yes, tap, ...request }) => {
    const { planTeardown, tearDown } = await import("../../linux/net/provision.ts");
    const plan = await (yes ? tearDown : planTeardown)(request);
    if (yes && tap !== null) {
      const { removeHostTap } = await import("../../linux/net/host-tap.ts");
      await removeHostTap(tap);
    }
    if (output.json) output.data({ ...plan, tap, done: yes });
    else for (const name of plan.removed) output.line(name);
    for (const name of plan.inUse) output.warn(`${name} stays: a sandbox has it`);
    const also = [plan.bridge, tap].filter((name) => name !== null);
    const what = [`${plan.removed.length} namespaces`, ...also].join(", ");
    if (yes) output.success(`removed ${what}`);
    else output.progress(`would remove ${what}; do it with --yes`);
    return exitCodes.ok;
  },
});

export const netnsLsVerb = defineVerb({
  describe: (command) =>
    command.name("ls").description("list the namespaces that are set up, and who has them"),
  parse: () => ({}),
  run: async ({ output }) => {
    const { NetnsPool } = await import("../../linux/net/pool.ts");
    const { childNet } = await import("../../linux/net/plan.ts");
    const pool = new NetnsPool();
    const held = (await pool.held()).map(({ number, holder }) => ({ number, holder }));
    const free = (await pool.free()).map((number) => ({ number, holder: null }));
    const rows = [...held, ...free].sort((a, b) => a.number - b.number);
    const named = rows.map(({ number, holder }) => ({
      netns: childNet(number).name,
      // A holder is a data directory's hash and a sandbox.
      sandbox: holder === null ? null : holder.slice(holder.indexOf(".") + 1),
    }));
    if (output.json) output.data(named);
    else {
      output.table(
        [
          { title: "NETNS", cell: ({ netns }) => netns },
          { title: "SANDBOX", cell: ({ sandbox }) => sandbox ?? "-" },
        ],
        named,
      );
      output.progress(`${free.length} of ${named.length} are free`);
    }
    return exitCodes.ok;
  },
});

export const netnsHostTapVerb = defineVerb({
  describe: (command) =>
    command
      .name("host-tap")
      .description("make one tap in the host's own network, for a guest that forkd does not run")
      .addOption(netOptions.device)
      .addOption(netOptions.address)
      .addOption(netOptions.user)
      .addOption(netOptions.uplink),
  parse: (input) => {
    const { flags } = input;
    return {
      tap: deviceName(flags, "device") ?? deviceNames.tap,
      address: tapAddress(flags, gateway4),
      user: parseUser(flags.text("user")),
      uplink: deviceName(flags, "uplink"),
    };
  },
  run: async ({ output }, settings) => {
    const { makeHostTap } = await import("../../linux/net/host-tap.ts");
    await makeHostTap(settings);
    if (output.json) output.data(settings);
    else output.success(`${settings.tap} is up, ${settings.address}/24`);
    return exitCodes.ok;
  },
});
