import assert from "node:assert/strict";
import { test } from "node:test";
import { z } from "zod";
import { missing } from "../helpers/capabilities.ts";
import { runChild } from "../runner/child.ts";
import { repoRoot } from "../tidy/files.ts";

const deadlineMs = 60_000;

/** What `npm audit --json` prints: a report, or why the registry could not be asked. */
const auditSchema = z.union([
  z.object({
    vulnerabilities: z.record(z.string(), z.object({ severity: z.string(), range: z.string() })),
    metadata: z.object({ vulnerabilities: z.object({ total: z.int() }) }),
  }),
  z.object({ message: z.string() }),
]);

type Verdict = { readonly problems: readonly string[] } | { readonly notAsked: string };

function verdictOf(printed: string): Verdict {
  const audit = auditSchema.parse(JSON.parse(printed));
  if ("message" in audit) return { notAsked: audit.message };
  const problems = Object.entries(audit.vulnerabilities).map(
    ([name, { severity, range }]) => `${name} ${range}: ${severity}`,
  );
  assert.equal(problems.length, audit.metadata.vulnerabilities.total);
  return { problems };
}

test("a package that is known to be vulnerable would be seen", () => {
  const known = { severity: "high", range: "<1.2.6" };
  const metadata = (total: number) => ({ vulnerabilities: { total } });
  const report = { vulnerabilities: { minimist: known }, metadata: metadata(1) };
  assert.deepEqual(verdictOf(JSON.stringify(report)), { problems: ["minimist <1.2.6: high"] });
  const clean = { vulnerabilities: {}, metadata: metadata(0) };
  assert.deepEqual(verdictOf(JSON.stringify(clean)), { problems: [] });
  const refused = { message: "405 Method Not Allowed", error: {} };
  assert.deepEqual(verdictOf(JSON.stringify(refused)), { notAsked: "405 Method Not Allowed" });
});

test("npm audit knows of nothing", { skip: missing({ network: true }) }, async (context) => {
  let printed = "";
  await runChild(["npm", "audit", "--json"], {
    cwd: repoRoot,
    env: process.env,
    deadlineMs,
    onStdoutLine: (line) => {
      printed += `${line}\n`;
    },
    onStderrLine: () => undefined,
  });
  const verdict = verdictOf(printed);
  if ("notAsked" in verdict) context.skip(`the registry tells no advisories: ${verdict.notAsked}`);
  else assert.deepEqual(verdict.problems, []);
});
