import { auditLogDefault } from "../../config/data-paths.ts";
import { type ChainHead, parseHead } from "../../fork/audit-chain.ts";
import type { AuditVerdict } from "../../fork/audit-verify.ts";
import type { Context } from "../context.ts";
import { exitCodes } from "../exit.ts";
import { usage } from "../flags.ts";
import type { Output } from "../output.ts";
import { defineVerb } from "../verb.ts";

interface Options {
  /** Empty for the host's own log. */
  readonly files: readonly string[];
  readonly expected: ChainHead | undefined;
}

export const auditVerifyVerb = defineVerb<Options>({
  describe: (command) =>
    command
      .name("verify")
      .description(
        "check that no entry of the audit log was changed, removed or moved; exits with 1 if one was",
      )
      .argument(
        "[file...]",
        "the files of one log in any order, else the host's own, rotated or not",
      )
      .option(
        "--expect <entry>",
        "an entry that must be there, NUMBER:HASH as this command prints it",
      ),
  parse: ({ flags, args }) => ({ files: args, expected: parseExpected(flags.text("expect")) }),
  run: async (context, options) => {
    const verdict = await verify(context, options);
    const { output } = context;
    if (output.json) output.data(wireForm(verdict));
    else print(output, verdict);
    return verdict.findings.length === 0 ? exitCodes.ok : exitCodes.failure;
  },
});

function parseExpected(text: string | undefined): ChainHead | undefined {
  if (text === undefined) return undefined;
  const head = parseHead(text);
  if (head === undefined) throw usage("--expect takes NUMBER:HASH");
  return head;
}

async function verify({ settings }: Context, options: Options): Promise<AuditVerdict> {
  const { findAuditFiles, verifyAudit } = await import("../../fork/audit-verify.ts");
  const { readHead } = await import("../../fork/audit-file.ts");
  const path = settings.env["FORKD_AUDIT_LOG"] || auditLogDefault(settings.paths.dataDir);
  const named = options.files.length > 0;
  // Read first: the daemon may write while the files are read.
  const kept = named ? undefined : await readHead(path);
  const files = named ? options.files : await findAuditFiles(path);
  const expected = [kept, options.expected].filter((head) => head !== undefined);
  return await verifyAudit(files.length > 0 ? files : [path], expected);
}

function wireForm({ first, last, ...verdict }: AuditVerdict): object {
  return { ...verdict, first_seq: first, last_seq: last?.seq ?? null, head: last?.hash ?? null };
}

function print(output: Output, { findings, first, last, entries, unchained }: AuditVerdict): void {
  for (const { file, line, problem } of findings) output.line(`${file}:${line}: ${problem}`);
  if (unchained > 0) output.progress(`${unchained} lines are of a version without a chain`);
  const range = last === null ? "no entries" : `entries ${first} to ${last.seq}, ${entries} in all`;
  if (findings.length > 0) output.warn(`${range}: ${findings.length} problems`);
  else output.success(`${range}: nothing was changed`);
  if (last !== null) output.line(`${last.seq}:${last.hash}`);
}
