import assert from "node:assert/strict";
import type { TestContext } from "node:test";
import {
  openApiDocument,
  type Problem,
  problemSchema,
  type Route,
  type RouteName,
  routeErrors,
  routePath,
  routes,
} from "@forkd/api";
import type { AuditEntry } from "@forkd/host/daemon/audit.ts";
import { createServer, type ServerConfig } from "@forkd/host/daemon/server.ts";
import { TokenGate } from "@forkd/host/daemon/token.ts";
import type { OperationEntry } from "@forkd/host/fork/audit-log.ts";
import { silentLogger } from "@forkd/host/lib/log.ts";
import type { InjectOptions, LightMyRequestResponse } from "fastify";
import { Contract } from "./contract.ts";
import { FakeService } from "./fake-service.ts";

export const testConfig: ServerConfig = {
  bind: { host: "127.0.0.1", port: 0 },
  version: "1.2.3",
  branchConcurrency: 4,
  tokens: null,
  tls: null,
  headersMaxMs: 10_000,
  receiveMaxMs: 30_000,
  answerStallMaxMs: 60_000,
};

export interface CallOptions {
  readonly params?: Readonly<Record<string, string>>;
  readonly body?: unknown;
  readonly headers?: Readonly<Record<string, string>>;
}

/** Like the server's own, with the token as a text. */
export type TestConfig = Partial<ServerConfig> & { readonly token?: string };

const contract = new Contract(openApiDocument(testConfig.version));

/**
 * A server over a fake service. Every answer that it gives is checked against the route table and
 * the OpenAPI document.
 */
export class TestServer {
  readonly service = new FakeService();
  readonly audited: AuditEntry[] = [];
  readonly operations: OperationEntry[] = [];
  readonly app;

  constructor({ token, ...config }: TestConfig = {}) {
    const tokens = token === undefined ? null : new TokenGate(token);
    this.app = createServer({
      service: this.service,
      config: { ...testConfig, tokens, ...config },
      log: silentLogger,
      audit: {
        write: (entry) => {
          if ("operation" in entry) this.operations.push(entry);
          else this.audited.push(entry);
        },
      },
    });
  }

  /** Answers without a socket. */
  async inject(options: InjectOptions): Promise<LightMyRequestResponse> {
    return await this.app.inject({ headers: { host: "127.0.0.1:8889" }, ...options });
  }

  /** Calls one row of the table and checks that the answer is one that the row allows. */
  async call(name: RouteName, options: CallOptions = {}): Promise<LightMyRequestResponse> {
    const route: Route = routes[name];
    const response = await this.inject({
      method: route.method,
      url: routePath(route, options.params ?? {}),
      headers: { host: "127.0.0.1:8889", ...options.headers },
      // A body may be anything that JSON can say; inject() writes it out.
      ...(options.body === undefined ? {} : { payload: options.body as object }),
    });
    if (response.statusCode >= 400) {
      const allowed: readonly string[] = routeErrors(route);
      assert.ok(allowed.includes(problemOf(response).code), `${name}: ${response.body}`);
    } else {
      checkSuccess(route, response);
    }
    contract.check({
      method: route.method,
      path: route.path,
      status: response.statusCode,
      contentType: String(response.headers["content-type"] ?? ""),
      text: response.body,
    });
    return response;
  }
}

function checkSuccess(route: Route, response: LightMyRequestResponse): void {
  assert.equal(response.statusCode, route.success.status);
  if (route.success.body === null) assert.equal(response.body, "");
  else if (typeof route.success.body !== "string") route.success.body.parse(response.json());
}

/** The failure in an answer; fails the test when the answer has another shape. */
export function problemOf(response: LightMyRequestResponse): Problem {
  assert.match(String(response.headers["content-type"]), /^application\/json/);
  // The schema allows exactly the codes of the table.
  const problem = problemSchema.parse(response.json()) as Problem;
  assert.deepEqual(Object.keys(response.json()).sort(), ["code", "error", "hint"]);
  assert.ok(!/\n\s+at /.test(problem.error), "an answer shows a stack");
  return problem;
}

/** Listens on a free port of loopback until the test ends. */
export async function listenForTest(server: TestServer, context: TestContext): Promise<number> {
  await server.app.listen({ host: "127.0.0.1", port: 0 });
  context.after(() => server.app.close());
  const address = server.app.server.address();
  assert.ok(address !== null && typeof address === "object");
  return address.port;
}
