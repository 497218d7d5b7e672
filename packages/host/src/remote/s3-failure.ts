import { ForkdError } from "@forkd/api";
import { connectFailure, plainReason, statusFailure, unreachable } from "./http-failure.ts";
import { retryLater } from "./retry.ts";

/** Refused for what went wrong on the way, or just now: the same request may do better. */
const passing: ReadonlySet<string> = new Set([
  "BadDigest",
  "InvalidDigest",
  "XAmzContentSHA256Mismatch",
  "IncompleteBody",
  "RequestTimeout",
  "SlowDown",
]);

/** Names of the client's own failures, before anything was sent. */
const unconfigured = /^(CredentialsProviderError|TokenProviderError|.*NotFoundInConfig.*)$/;

/** What of AWS's failures is read here; its classes are loaded with its client only. */
interface S3Problem {
  readonly name: string;
  readonly message: string;
  readonly $metadata?: { readonly httpStatusCode?: number };
  readonly $response?: { readonly headers?: Readonly<Record<string, string>> };
}

/** The HTTP status of a failure of AWS's client; undefined when there was no answer. */
export function s3Status(error: unknown): number | undefined {
  return problemOf(error)?.$metadata?.httpStatusCode;
}

/** Any failure of AWS's client in our words. */
export function s3Failure(error: unknown, name: string): ForkdError {
  if (error instanceof ForkdError) return error;
  const problem = problemOf(error);
  if (problem === undefined) return unreachable(`${name} cannot be reached`, error);
  const said = plainReason(problem.message);
  const message = `${name}: ${problem.name}${said === "" ? "" : `: ${said}`}`;
  const status = problem.$metadata?.httpStatusCode;
  if (unconfigured.test(problem.name) || /^Region is missing/.test(problem.message)) {
    return new ForkdError("remote_refused", message, {
      hint: "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; and AWS_REGION",
      cause: error,
    });
  }
  if (status === undefined) return connectFailure(name, error);
  const retryAfter = problem.$response?.headers?.["retry-after"];
  if (passing.has(problem.name)) return retryLater(message, retryAfter);
  return statusFailure(status, message, retryAfter);
}

function problemOf(error: unknown): S3Problem | undefined {
  // The client documents these fields of all its failures; they are only read if they are there.
  return error instanceof Error ? (error as S3Problem) : undefined;
}
