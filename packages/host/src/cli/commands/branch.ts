import { addBranchOptions, type BranchOrder, parseBranch, runBranch } from "../branch.ts";
import { usage } from "../flags.ts";
import { defineVerb } from "../verb.ts";

export const branchVerb = defineVerb<BranchOrder>({
  describe: (command) =>
    addBranchOptions(
      command
        .name("branch")
        .description("make a snapshot of a running sandbox, which runs on")
        .argument("<id>", "a sandbox of the daemon")
        .option("--tag <tag>", "the new snapshot's name"),
    ),
  parse: ({ flags, args, rest }) => {
    const [id, ...more] = [...args, ...rest];
    if (id === undefined || more.length > 0) throw usage("name one sandbox");
    return parseBranch(flags, id);
  },
  run: runBranch,
});
