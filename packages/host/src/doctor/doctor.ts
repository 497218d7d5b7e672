import { ForkdError, toForkdError } from "@forkd/api";
import { withDeadline } from "../lib/deadline.ts";
import { type Check, type CheckStatus, type Finding, fail } from "./check.ts";
import { families } from "./families.ts";
import type { DoctorScope } from "./scope.ts";

export interface DiagnoseOptions {
  /** Names of the checks to run; all of them when empty. */
  readonly only: readonly string[];
  /** Mend what may be mended without asking, and look again. */
  readonly fix: boolean;
}

/** What one check found, and what was done about it. */
export interface CheckReport {
  readonly name: string;
  readonly family: string;
  readonly status: CheckStatus;
  readonly detail: string;
  /** Null for what needs nothing. */
  readonly hint: string | null;
  /** What was mended before `status` was found; null when nothing was. */
  readonly fixed: string | null;
}

const checkTimeoutDefaultMs = 8_000;
/** Removing what was left behind may take a while. */
const fixTimeoutMs = 60_000;

/** Every check's name, in the order of reports. */
export function checkNames(): string[] {
  return families.flatMap(({ checks }) => checks.map(({ name }) => name));
}

/**
 * Looks at the host. Families run side by side, the checks of one after each other, each with a
 * deadline; one that breaks is a failure of its own and stops no other. Throws bad_request for a
 * name that no check has.
 */
export async function diagnose(
  scope: DoctorScope,
  options: DiagnoseOptions,
): Promise<CheckReport[]> {
  requireKnown(options.only);
  const wanted = ({ name }: Check): boolean =>
    options.only.length === 0 || options.only.includes(name);
  const reports = await Promise.all(
    families.map(async ({ name: family, checks }) => {
      const found: CheckReport[] = [];
      for (const check of checks.filter(wanted)) {
        found.push({ name: check.name, family, ...(await examine(scope, check, options.fix)) });
      }
      return found;
    }),
  );
  return reports.flat();
}

function requireKnown(names: readonly string[]): void {
  const known = checkNames();
  const stranger = names.find((name) => !known.includes(name));
  if (stranger === undefined) return;
  const shown = JSON.stringify(stranger.slice(0, 60));
  throw new ForkdError("bad_request", `there is no check ${shown}`, {
    hint: `choose of: ${known.join(", ")}`,
  });
}

type Examined = Omit<CheckReport, "name" | "family">;

async function examine(scope: DoctorScope, check: Check, mend: boolean): Promise<Examined> {
  const first = await find(scope, check);
  if (!mend || first.fix === null) return { ...shown(first), fixed: null };
  try {
    const fixed = await withDeadline(first.fix(), fixTimeoutMs, `mending ${check.name}`);
    return { ...shown(await find(scope, check)), fixed };
  } catch (error) {
    const detail = `${first.detail}; mending it failed: ${toForkdError(error).message}`;
    return { ...shown(first), detail, fixed: null };
  }
}

async function find(scope: DoctorScope, { name, run, timeoutMs }: Check): Promise<Finding> {
  const asked = typeof timeoutMs === "function" ? timeoutMs(scope) : timeoutMs;
  const deadlineMs = asked ?? checkTimeoutDefaultMs;
  try {
    return await withDeadline(run(scope), deadlineMs, `looking at ${name}`);
  } catch (error) {
    const { message, hint } = toForkdError(error);
    return fail(message, hint);
  }
}

function shown({ status, detail, hint }: Finding): Omit<Examined, "fixed"> {
  return { status, detail, hint };
}
