import type { ChildTimings } from "../fork/service.ts";
import { formatMs, summarize } from "./format.ts";
import type { Output } from "./output.ts";
import type { Column } from "./table.ts";

/** What one child of the quickstart did; times are milliseconds since the fork began. */
export interface QuickstartChild {
  readonly index: number;
  readonly hostname: string;
  readonly timings: ChildTimings;
  /** When its right answer was here; null when the answer was wrong or none came. */
  readonly answerMs: number | null;
  readonly failure: string | null;
}

const columns: readonly Column<QuickstartChild>[] = [
  { title: "CHILD", align: "right", cell: (child) => String(child.index) },
  { title: "PROCESS ms", align: "right", cell: ({ timings }) => formatMs(timings.processMs) },
  { title: "RESTORED ms", align: "right", cell: ({ timings }) => formatMs(timings.restoredMs) },
  { title: "IDENTITY ms", align: "right", cell: ({ timings }) => formatMs(timings.identityMs) },
  {
    title: "ANSWER ms",
    align: "right",
    cell: ({ answerMs }) => (answerMs === null ? "wrong" : formatMs(answerMs)),
  },
  { title: "HOSTNAME", cell: (child) => child.hostname },
];

/** The table of the children, then how their first verified answers are spread. */
export function printChildren(output: Output, children: readonly QuickstartChild[]): void {
  output.table(columns, children);
  const answers = children.flatMap(({ answerMs }) => (answerMs === null ? [] : [answerMs]));
  const summary = summarize(answers);
  output.line("");
  output.line(`${answers.length} / ${children.length} children verified`);
  if (summary === undefined) return;
  const { p50, p95, max } = summary;
  const spread = `p50 ${formatMs(p50)} ms, p95 ${formatMs(p95)} ms, max ${formatMs(max)} ms`;
  output.line(`fork to verified answer: ${spread}`);
}

export function printNextSteps(output: Output, tag: string): void {
  const steps = [
    [`forkd fork --tag ${tag} -n 100`, "a hundred at once"],
    ["forkd-controller serve", "the daemon, in another terminal"],
    [`forkd spawn --tag ${tag} -n 3`, "children that stay"],
    ["forkd ls", "their ids"],
    ["forkd exec ID -- uname -a", "a command in one of them"],
    ["forkd eval ID -- 'numpy.arange(3).tolist()'", "code in its warm interpreter"],
    ["forkd kill --all", "end them"],
  ] as const;
  output.progress("next, try (as ./bin/forkd in a checkout):");
  for (const [command, what] of steps) output.hint(`    ${command.padEnd(46)} # ${what}`);
}
