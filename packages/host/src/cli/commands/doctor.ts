import { toForkdError } from "@forkd/api";
import type { CheckReport } from "../../doctor/doctor.ts";
import type { DaemonAnswer, DoctorScope } from "../../doctor/scope.ts";
import type { Context } from "../context.ts";
import { openClient } from "../daemon.ts";
import { exitCodes } from "../exit.ts";
import { usage } from "../flags.ts";
import type { Output } from "../output.ts";
import { cliVersion } from "../parse.ts";
import { plain } from "../table.ts";
import { collect, defineVerb } from "../verb.ts";

const daemonTimeoutMs = 2_000;
const marks = { pass: "✓", warn: "!", fail: "✗", skip: "-" } as const;

/** Asks the daemon once; what it says is the same for every check. */
function daemonAsker(context: Context): () => Promise<DaemonAnswer> {
  let answer: Promise<DaemonAnswer> | undefined;
  return () => {
    answer ??= askDaemon(context);
    return answer;
  };
}

async function askDaemon({ settings, signal }: Context): Promise<DaemonAnswer> {
  const client = await openClient(settings);
  const control = { timeoutMs: daemonTimeoutMs, signal, retriesMax: 0 };
  try {
    return { kind: "up", facts: await client.hostFacts(control) };
  } catch (thrown) {
    const { code, message: reason } = toForkdError(thrown);
    if (code === "unauthorized") return { kind: "refused", reason };
    if (code === "daemon_unreachable") return { kind: "absent", reason };
    // One of another version may lack the route; one of this version is slow, or broken.
    const other = await client.version(control).catch(() => undefined);
    return other === undefined || other.version === cliVersion()
      ? { kind: "broken", reason }
      : { kind: "other", version: other.version };
  }
}

async function openScope(context: Context): Promise<DoctorScope> {
  const { hostRoots } = await import("../../doctor/scope.ts");
  const { resolveEngineSettings } = await import("../../config/engine-settings.ts");
  const { auditLogDefault } = await import("../../config/data-paths.ts");
  const { paths, env, daemonUrl } = context.settings;
  return {
    paths,
    roots: hostRoots,
    engines: resolveEngineSettings(env),
    path: env["PATH"] ?? "",
    version: cliVersion(),
    auditLogPath: env["FORKD_AUDIT_LOG"] || auditLogDefault(paths.dataDir),
    tokenFile: env["FORKD_TOKEN_FILE"] || `${hostRoots.etc}/token`,
    tlsCertFile: env["FORKD_TLS_CERT"] || undefined,
    daemonUrl,
    askDaemon: daemonAsker(context),
  };
}

function countOf(reports: readonly CheckReport[], status: CheckReport["status"]): number {
  return reports.filter((report) => report.status === status).length;
}

function print(output: Output, reports: readonly CheckReport[]): void {
  const width = Math.max(...reports.map(({ name }) => name.length));
  for (const { name, status, detail, hint, fixed } of reports) {
    output.line(`${marks[status]} ${name.padEnd(width)}  ${plain(detail)}`);
    if (fixed !== null) output.line(`    mended: ${plain(fixed)}`);
    if (hint !== null && status !== "skip") output.line(`    ${hint}`);
  }
  const counts = (["pass", "warn", "fail", "skip"] as const).map(
    (status) => `${status}=${countOf(reports, status)}`,
  );
  output.line(`\n${counts.join(" ")}`);
}

export const doctorVerb = defineVerb({
  describe: (command) =>
    command
      .name("doctor")
      .description("look at this host, say what is wrong and what mends it; 1 if a check fails")
      .option("--fix", "mend what is forkd's own and safe to mend, and say what was done")
      .option("--only <name>", "this check only; may be given more than once", collect),
  parse: ({ flags, args }) => {
    if (args.length > 0) throw usage("doctor takes no arguments", "name a check with --only");
    return { fix: flags.on("fix"), only: flags.list("only") };
  },
  run: async (context, options) => {
    const { diagnose } = await import("../../doctor/doctor.ts");
    const { output } = context;
    const reports = await diagnose(await openScope(context), options);
    const ok = countOf(reports, "fail") === 0;
    if (output.json) output.data({ ok, checks: reports });
    else print(output, reports);
    return ok ? exitCodes.ok : exitCodes.failure;
  },
});
