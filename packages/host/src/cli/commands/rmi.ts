import { parseSnapshotTag, type SnapshotTag, toForkdError } from "@forkd/api";
import { removeSnapshot } from "../bake.ts";
import { exitCodes } from "../exit.ts";
import { usage } from "../flags.ts";
import { withService } from "../local.ts";
import { defineVerb } from "../verb.ts";

interface Removal {
  readonly tag: SnapshotTag;
  readonly removed: "daemon" | "disk" | null;
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
        try {
          const removed = await removeSnapshot(context, service, tag);
          if (!output.json) output.line(`✓ ${tag} (${removed})`);
          removals.push({ tag, removed });
        } catch (error) {
          if (context.signal.aborted) throw error;
          output.problem(toForkdError(error));
          removals.push({ tag, removed: null });
        }
      }
      if (output.json) output.data(removals);
      const failed = removals.some(({ removed }) => removed === null);
      return failed ? exitCodes.failure : exitCodes.ok;
    }),
});
