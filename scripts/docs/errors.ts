import { errorTable } from "@forkd/api";
import { code, page, table } from "./markdown.ts";

/** docs/errors.md: every code with its status and its usual next step. */
export function renderErrorDocs(): string {
  const rows = Object.entries(errorTable).map(([name, { status, retryAfterSecs, hint }]) => [
    code(name),
    String(status),
    retryAfterSecs === null ? "no" : `after ${retryAfterSecs} s`,
    hint,
  ]);
  return page("Errors", "packages/api/src/errors.ts", [
    "Every failure of the API is a JSON object: `error` says what and why, for people; `code` is one " +
      "of these names, for programs; `hint` is the next step. The command line prints the same " +
      "words. A retryable request may succeed later as it is, at the earliest after the seconds that " +
      "the answer's `Retry-After` names.",
    table(["Code", "Status", "Retryable", "Hint, unless the failure has a better one"], rows),
  ]);
}
