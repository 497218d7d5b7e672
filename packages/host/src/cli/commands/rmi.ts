import { type ForkdError, parseSnapshotTag, type SnapshotTag, toForkdError } from "@forkd/api";
import { Option } from "commander";
import type { ForkService, RemoveMode } from "../../fork/service.ts";
import { type Removal, removeSnapshot } from "../bake.ts";
import type { Context } from "../context.ts";
import { exitCodes } from "../exit.ts";
import { usage } from "../flags.ts";
import { withService } from "../local.ts";
import { defineVerb } from "../verb.ts";

interface Removed {
  readonly tag: SnapshotTag;
  readonly removed: "daemon" | "disk" | null;
  readonly failure?: ForkdError;
}

async function remove(context: Context, service: ForkService, order: Removal): Promise<Removed> {
  const { tag } = order;
  try {
    return { tag, removed: await removeSnapshot(context, service, order) };
  } catch (error) {
    context.signal.throwIfAborted();
    return { tag, removed: null, failure: toForkdError(error) };
  }
}

function removalLine({ tag, removed, failure }: Removed): string {
  return failure === undefined ? `✓ ${tag} (${removed})` : `✗ ${tag}  ${failure.message}`;
}

export const rmiVerb = defineVerb({
  describe: (command) =>
    command
      .name("rmi")
      .description("remove snapshots, through the daemon when it has them")
      .argument("<tag...>", "the snapshots' tags")
      .addOption(new Option("--cascade", "remove what was made from them too").conflicts("force"))
      .addOption(
        new Option("--force", "leave what was made from them, though it cannot be forked"),
      ),
  parse: ({ flags, args, rest }) => {
    const tags = [...new Set([...args, ...rest])].map(parseSnapshotTag);
    if (tags.length === 0) throw usage("name at least one tag");
    const mode: RemoveMode = flags.on("cascade")
      ? "cascade"
      : flags.on("force")
        ? "orphan"
        : "refuse";
    return { tags, mode };
  },
  run: (context, { tags, mode }) =>
    withService(context, async (service) => {
      const { output } = context;
      const removals: Removed[] = [];
      for (const tag of tags) {
        const removal = await remove(context, service, { tag, mode });
        if (!output.json) output.line(removalLine(removal));
        removals.push(removal);
      }
      if (output.json) output.data(removals.map(({ tag, removed }) => ({ tag, removed })));
      const failure = removals.find((removal) => removal.failure !== undefined)?.failure;
      if (failure !== undefined) throw failure;
      return exitCodes.ok;
    }),
});
