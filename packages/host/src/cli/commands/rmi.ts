import { type ForkdError, parseSnapshotTag, type SnapshotTag, toForkdError } from "@forkd/api";
import type { ForkService } from "../../fork/service.ts";
import { removeSnapshot } from "../bake.ts";
import type { Context } from "../context.ts";
import { exitCodes } from "../exit.ts";
import { usage } from "../flags.ts";
import { withService } from "../local.ts";
import { defineVerb } from "../verb.ts";

interface Removal {
  readonly tag: SnapshotTag;
  readonly removed: "daemon" | "disk" | null;
  readonly failure?: ForkdError;
}

async function remove(context: Context, service: ForkService, tag: SnapshotTag): Promise<Removal> {
  try {
    return { tag, removed: await removeSnapshot(context, service, tag) };
  } catch (error) {
    context.signal.throwIfAborted();
    return { tag, removed: null, failure: toForkdError(error) };
  }
}

function removalLine({ tag, removed, failure }: Removal): string {
  return failure === undefined ? `✓ ${tag} (${removed})` : `✗ ${tag}  ${failure.message}`;
}

export const rmiVerb = defineVerb({
  describe: (command) =>
    command
      .name("rmi")
      .description("remove snapshots, through the daemon when it has them")
      .argument("<tag...>", "the snapshots' tags"),
  parse: ({ args, rest }) => {
    const tags = [...new Set([...args, ...rest])].map(parseSnapshotTag);
    if (tags.length === 0) throw usage("name at least one tag");
    return { tags };
  },
  run: (context, { tags }) =>
    withService(context, async (service) => {
      const { output } = context;
      const removals: Removal[] = [];
      for (const tag of tags) {
        const removal = await remove(context, service, tag);
        if (!output.json) output.line(removalLine(removal));
        removals.push(removal);
      }
      if (output.json) output.data(removals.map(({ tag, removed }) => ({ tag, removed })));
      const failure = removals.find((removal) => removal.failure !== undefined)?.failure;
      if (failure !== undefined) throw failure;
      return exitCodes.ok;
    }),
});
