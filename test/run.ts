/**
 * Runs the tests: `scripts/node test/run.ts [PROJECT...] [--file PART] [--name PATTERN]`.
 * The last line is `N passed, N failed[, N skipped]`; the exit code is 0 only when tests ran and
 * none failed.
 */
import { failUsage, readArgs } from "./runner/args.ts";
import { projects, runDeadlineMs } from "./runner/projects.ts";
import { runProject } from "./runner/run-project.ts";
import { closingLine, exitCode, summary, type Tally } from "./runner/tally.ts";

const usage = "npm test -- [PROJECT...] [--file PART] [--name PATTERN]";
const { values, positionals } = readArgs(usage, {
  allowPositionals: true,
  options: { file: { type: "string" }, name: { type: "string" } },
});

const unknown = positionals.filter((name) => projects.every((project) => project.name !== name));
if (unknown.length > 0) {
  const names = projects.map((project) => project.name).join(" ");
  failUsage(usage, `no such test project: ${unknown.join(", ")}; choose from: ${names}`);
}

let interrupted = false;
process.on("SIGINT", () => {
  interrupted = true;
});

const started = performance.now();
const tallies: Tally[] = [];
for (const project of projects) {
  if (interrupted || (positionals.length > 0 && !positionals.includes(project.name))) continue;
  console.log(`running ${project.name} ...`);
  const tally = await runProject(project, {
    fileFilter: values.file ?? null,
    namePattern: values.name ?? null,
    deadlineMs: Math.max(1, runDeadlineMs - (performance.now() - started)),
  });
  tallies.push(tally);
}
console.log(`\n${summary(tallies)}\n`);
console.log(closingLine(tallies));
process.exitCode = interrupted ? 130 : exitCode(tallies);
