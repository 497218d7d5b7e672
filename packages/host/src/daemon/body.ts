import { type ErrorCode, ForkdError, type Route } from "@forkd/api";
import type { FastifyInstance } from "fastify";
import type { z } from "zod";
import { checkJsonShape } from "./json-shape.ts";

/** Marks a body whose type no route reads; the route decides whether that matters. */
const foreignBody = Symbol("foreign body");

/** An empty body is no body, whatever its type: upstream's clients send such pings. */
export function installBodyParsers(app: FastifyInstance): void {
  const parseJson = app.getDefaultJsonParser("error", "error");
  app.removeAllContentTypeParsers();
  app.addContentTypeParser("application/json", { parseAs: "string" }, (request, body, done) => {
    if (body === "") {
      done(null, undefined);
      return undefined;
    }
    // The cast says what parseAs "string" means; Fastify's type allows a buffer too.
    const text = body as string;
    try {
      checkJsonShape(text);
    } catch (error) {
      // It throws nothing else.
      done(error as ForkdError);
      return undefined;
    }
    return parseJson(request, text, done);
  });
  app.addContentTypeParser("*", { parseAs: "buffer" }, (_request, body, done) => {
    done(null, body.length === 0 ? undefined : foreignBody);
  });
}

/** The body that a route's handler gets. Throws unsupported_media_type and validation failures. */
export function parseBody(route: Route, body: unknown): unknown {
  if (route.request === null || route.request === "bytes") return undefined;
  if (body === foreignBody) {
    throw new ForkdError("unsupported_media_type", "the body is not application/json");
  }
  const parsed = route.request.safeParse(body);
  if (parsed.success) return parsed.data;
  throw validationError(parsed.error.issues);
}

/** The query that a route's handler gets; what the route does not know is ignored. */
export function parseQuery(route: Route, query: unknown): object {
  if (route.query === undefined) return {};
  const parsed = route.query.safeParse(query);
  if (parsed.success) return parsed.data;
  throw validationError(parsed.error.issues);
}

type Issue = z.core.$ZodIssue;

/** Fields with a code of their own; upstream checks the count first and the tag second. */
const fieldCodes: readonly { readonly field: string; readonly code: ErrorCode }[] = [
  { field: "n", code: "invalid_count" },
  { field: "snapshot_tag", code: "invalid_tag" },
  { field: "tag", code: "invalid_tag" },
  { field: "to", code: "invalid_tag" },
  { field: "parent_tag", code: "invalid_tag" },
];

const issuesShownMax = 5;

function validationError(issues: readonly Issue[]): ForkdError {
  for (const { field, code } of fieldCodes) {
    const issue = issues.find(({ path }) => path.length === 1 && path[0] === field);
    // A missing or mistyped field is a malformed request, not a bad tag.
    if (issue !== undefined && issue.code !== "invalid_type") {
      return new ForkdError(code, describe(issue));
    }
  }
  return new ForkdError("bad_request", issues.slice(0, issuesShownMax).map(describe).join("; "));
}

function describe({ path, message }: Issue): string {
  const field = path.join(".").slice(0, 80);
  return field === "" ? `the body: ${message}` : `${field}: ${message}`;
}
