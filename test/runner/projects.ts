/** One group of tests that runs in one go. */
export interface NodeProject {
  readonly kind: "node";
  readonly name: string;
  /** Test files that run at one time. */
  readonly concurrency: number;
  readonly fileTimeoutMs: number;
  readonly deadlineMs: number;
}

export interface MakeProject {
  readonly kind: "make";
  readonly name: string;
  /** `make -C dir target`, each printing TAP. */
  readonly targets: readonly { readonly dir: string; readonly target: string }[];
  readonly deadlineMs: number;
}

/** Programs that are one test each: they pass when they exit with 0. */
export interface CommandProject {
  readonly kind: "command";
  readonly name: string;
  readonly commands: readonly (readonly string[])[];
  readonly deadlineMs: number;
}

export type Project = NodeProject | MakeProject | CommandProject;

const minute = 60_000;

/** In the order in which they run: what fails fast comes first. */
export const projects: readonly Project[] = [
  {
    kind: "command",
    name: "checks",
    commands: [
      ["node_modules/.bin/biome", "check", "--error-on-warnings", "--max-diagnostics=50"],
      ["node_modules/.bin/tsc", "-b"],
    ],
    deadlineMs: 4 * minute,
  },
  node("tidy", { concurrency: 2, fileTimeoutMs: 2 * minute, deadlineMs: 4 * minute }),
  node("unit", { concurrency: 2, fileTimeoutMs: minute, deadlineMs: 5 * minute }),
  {
    kind: "make",
    name: "native",
    targets: [
      { dir: "guest", target: "test" },
      { dir: "guest", target: "asan" },
      { dir: "native", target: "test" },
    ],
    deadlineMs: 6 * minute,
  },
  node("integration", { concurrency: 1, fileTimeoutMs: 6 * minute, deadlineMs: 14 * minute }),
  node("conformance", { concurrency: 1, fileTimeoutMs: 8 * minute, deadlineMs: 14 * minute }),
  node("e2e", { concurrency: 1, fileTimeoutMs: 12 * minute, deadlineMs: 22 * minute }),
];

/** All projects together, so that a run fits in the time that CI gives it. */
export const runDeadlineMs = 36 * minute;

function node(name: string, rest: Omit<NodeProject, "kind" | "name">): NodeProject {
  return { kind: "node", name, ...rest };
}
