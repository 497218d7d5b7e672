import type { LeakReport } from "../../fork/leaks/leaks.ts";
import { exitCodes } from "../exit.ts";
import type { Output } from "../output.ts";
import { defineVerb } from "../verb.ts";

function wireForm({ kind, what, why, fixed, problem }: LeakReport): object {
  return { kind, what, why, fixed, problem: problem?.toProblem() ?? null };
}

function print(output: Output, report: LeakReport): void {
  const { kind, what, why, fixed, problem } = report;
  output.line(`${kind}  ${what}: ${why}`);
  if (fixed !== null) output.line(`  ✓ ${fixed}`);
  if (problem !== null) output.line(`  ✗ ${problem.message}`);
}

export const leaksVerb = defineVerb({
  describe: (command) =>
    command
      .name("leaks")
      .description(
        "list what forkd left on this host and no record explains; exits with 1 if there is any",
      )
      .option("--fix", "remove it; what cannot be understood is moved aside"),
  parse: ({ flags }) => ({ fix: flags.on("fix") }),
  run: async ({ settings, output }, { fix }) => {
    const { fixLeaks, listLeaks } = await import("../../fork/leaks/leaks.ts");
    const reports = await (fix ? fixLeaks : listLeaks)(settings.paths);
    if (output.json) output.data(reports.map(wireForm));
    else for (const report of reports) print(output, report);
    return reports.every(({ fixed }) => fixed !== null) ? exitCodes.ok : exitCodes.failure;
  },
});
