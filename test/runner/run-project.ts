import { existsSync, globSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import { runChild } from "./child.ts";
import type { CommandProject, MakeProject, NodeProject, Project } from "./projects.ts";
import type { ReportLine } from "./reporter.ts";
import { addFailure, Collector, newTally, type Tally } from "./tally.ts";
import { addTapLine } from "./tap.ts";

export interface RunOptions {
  /** Only files whose path has this in it. */
  readonly fileFilter: string | null;
  /** Passed to node:test as the pattern of test names. */
  readonly namePattern: string | null;
  readonly deadlineMs: number;
}

export const repoRoot = resolve(import.meta.dirname, "../..");

const errorCharsMax = 16_000;

export async function runProject(project: Project, options: RunOptions): Promise<Tally> {
  const tally = newTally(project.name);
  const started = performance.now();
  if (project.kind === "node") await runNode(project, tally, options);
  else if (project.kind === "make") await runMake(project, tally, options);
  else await runCommands(project, tally, options);
  tally.durationMs = performance.now() - started;
  return tally;
}

function testFiles(project: NodeProject, filter: string | null): string[] {
  const files = globSync(`test/${project.name}/**/*.test.ts`, { cwd: repoRoot }).sort();
  return filter === null ? files : files.filter((file) => file.includes(filter));
}

/** As scripts/node runs our sources. */
const sourceFlags = ["--conditions=forkd-source", "--disable-warning=ExperimentalWarning"];

function nodeArgs(project: NodeProject, options: RunOptions, files: string[]): string[] {
  return [
    process.execPath,
    // V8's too, which Node hands on to the processes of the files (test/helpers/system-node).
    ...new Set([...process.execArgv, ...sourceFlags]),
    "--test",
    // No --test-force-exit: a file that exits by force can lose results that are still in its pipe.
    `--test-concurrency=${project.concurrency}`,
    `--test-timeout=${project.fileTimeoutMs}`,
    `--test-reporter=${join(import.meta.dirname, "reporter.ts")}`,
    "--test-reporter-destination=stdout",
    ...(options.namePattern === null ? [] : [`--test-name-pattern=${options.namePattern}`]),
    ...files,
  ];
}

async function runNode(project: NodeProject, tally: Tally, options: RunOptions): Promise<void> {
  const files = testFiles(project, options.fileFilter);
  if (files.length === 0) return noFiles(project, tally, options);
  const collector = new Collector(tally, (file) => relative(repoRoot, file));
  let stderrTail = "";
  const keep = (line: string): void => {
    stderrTail = `${stderrTail}${line}\n`.slice(-errorCharsMax);
  };
  const end = await runChild(nodeArgs(project, options, files), {
    cwd: repoRoot,
    env: { ...process.env, FORKD_TEST_PROJECT: project.name },
    deadlineMs: Math.min(project.deadlineMs, options.deadlineMs),
    onStdoutLine: (line) => {
      const parsed = parseLine(line);
      if (parsed === null) keep(line);
      else collector.add(parsed);
    },
    onStderrLine: keep,
  });
  if (end.timedOut) addFailure(tally, "the whole project", `it passed its deadline\n${stderrTail}`);
  else if (end.code !== 0 && tally.failed === 0) {
    addFailure(tally, "the whole project", `node --test ended with ${end.code}\n${stderrTail}`);
  }
  if (tally.passed + tally.failed + tally.skips.length === 0) {
    addFailure(tally, "the whole project", `${files.length} files, but no test ran\n${stderrTail}`);
  }
}

function noFiles(project: NodeProject, tally: Tally, options: RunOptions): void {
  if (options.fileFilter !== null) tally.absent = `no file matches ${options.fileFilter}`;
  else if (existsSync(join(repoRoot, "test", project.name))) {
    addFailure(tally, "the whole project", "the directory has no *.test.ts file");
  } else tally.absent = `test/${project.name}/ does not exist`;
}

function parseLine(line: string): ReportLine | null {
  try {
    // The other end is our own reporter.ts, so the shape is known.
    return JSON.parse(line) as ReportLine;
  } catch {
    return null;
  }
}

async function runMake(project: MakeProject, tally: Tally, options: RunOptions): Promise<void> {
  const present = project.targets.filter(({ dir }) => existsSync(join(repoRoot, dir, "Makefile")));
  if (present.length === 0) tally.absent = "no Makefile";
  for (const { dir, target } of present) {
    await runTarget({
      tally,
      dir,
      target,
      deadlineMs: Math.min(project.deadlineMs, options.deadlineMs),
    });
  }
}

interface TargetRun {
  readonly tally: Tally;
  readonly dir: string;
  readonly target: string;
  readonly deadlineMs: number;
}

async function runTarget({ tally, dir, target, deadlineMs }: TargetRun): Promise<void> {
  const title = `make -C ${dir} ${target}`;
  const before = counted(tally);
  const failedBefore = tally.failed;
  let tail = "";
  const keep = (line: string): void => {
    tail = `${tail}${line}\n`.slice(-errorCharsMax);
  };
  const end = await runChild(["make", "-s", "-C", dir, target], {
    cwd: repoRoot,
    env: process.env,
    deadlineMs,
    onStdoutLine: (line) => {
      keep(line);
      addTapLine(tally, `${dir} ${target}`, line);
    },
    onStderrLine: keep,
  });
  if (end.timedOut) addFailure(tally, title, `it passed its deadline\n${tail}`);
  else if (end.code !== 0 && tally.failed === failedBefore) {
    addFailure(tally, title, `it ended with ${end.code}\n${tail}`);
  } else if (end.code === 0 && counted(tally) === before) {
    addFailure(tally, title, `it printed no TAP result, so nothing was tested\n${tail}`);
  }
}

async function runCommands(
  project: CommandProject,
  tally: Tally,
  options: RunOptions,
): Promise<void> {
  for (const argv of project.commands) {
    const title = argv.join(" ");
    let tail = "";
    const keep = (line: string): void => {
      tail = `${tail}${line}\n`.slice(-errorCharsMax);
    };
    const end = await runChild(argv, {
      cwd: repoRoot,
      // The tools' launchers ask for `node`, which must be the one that runs us.
      env: { ...process.env, PATH: `${dirname(process.execPath)}:${process.env["PATH"]}` },
      deadlineMs: Math.min(project.deadlineMs, options.deadlineMs),
      onStdoutLine: keep,
      onStderrLine: keep,
    });
    if (end.code === 0) tally.passed += 1;
    else addFailure(tally, title, end.timedOut ? `it passed its deadline\n${tail}` : tail);
  }
}

const counted = (tally: Tally): number => tally.passed + tally.failed + tally.skips.length;
