import { readFileSync } from "node:fs";

/** Every name of the samples in a scrape: of histograms, those of their parts. */
export function metricNames(scrape: string): ReadonlySet<string> {
  return new Set(scrape.split("\n").flatMap((line) => /^[a-z_]+/.exec(line)?.[0] ?? []));
}

interface Panel {
  readonly targets?: readonly { readonly expr: string }[];
}

/** A Grafana dashboard's expressions, with values for what Grafana puts in. */
export function expressionsOfDashboard(path: string): string[] {
  // The file is ours; a test fails when its shape is another one.
  const { panels } = JSON.parse(readFileSync(path, "utf8")) as { readonly panels: Panel[] };
  const expressions = panels.flatMap(({ targets }) => (targets ?? []).map(({ expr }) => expr));
  return expressions.map((expression) =>
    expression.replaceAll("$__rate_interval", "5m").replaceAll("$instance", ".*"),
  );
}

/** The expressions of a rule file: `expr: ...` on one line, or folded below `expr: >-`. */
export function expressionsOfAlerts(path: string): string[] {
  const found = readFileSync(path, "utf8").matchAll(/^ +expr: (?:>-\n((?: {10}.*\n)+)|(.*)\n)/gm);
  return [...found].map(([, folded, plain]) => (folded ?? plain ?? "").replaceAll(/\s+/g, " "));
}
