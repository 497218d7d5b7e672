import { errorTable } from "@forkd/api";
import type { FastifyInstance, FastifyRequest } from "fastify";
import { onAnswered } from "../answered.ts";
import type { SocketRefusals } from "../socket-refusals.ts";
import { gauge, type Metric } from "./exposition.ts";
import { Counter, Histogram, workBuckets } from "./histogram.ts";

/** A request that became a WebSocket lasts as long as that. */
const upgradedStatus = 101;
/** What a bound of the daemon's refused: who asked may come again. */
const boundStatuses: readonly number[] = [
  errorTable.too_many_requests.status,
  errorTable.busy.status,
];

/** What clients ask, and how it is answered. */
export class RequestMeters {
  readonly #answers = new Counter("forkd_http_answers_total", "Answers by HTTP status.");
  readonly #refused = new Counter(
    "forkd_http_refused_total",
    "Answers that a bound made, by route.",
  );
  readonly #seconds = new Histogram({
    name: "forkd_http_request_seconds",
    help: "From a request's headers to its whole answer, by route.",
    buckets: workBuckets,
  });
  #inFlight = 0;

  install(app: FastifyInstance, refusals: SocketRefusals): void {
    refusals.onRefused(({ error }) => this.#answers.add({ status: String(error.status) }));
    app.addHook("onRequest", async () => {
      this.#inFlight += 1;
    });
    onAnswered(app, ({ request, status, elapsedMs }) => {
      this.#inFlight -= 1;
      this.#answers.add({ status: String(status) });
      const labels = routeOf(request);
      if (boundStatuses.includes(status)) this.#refused.add({ ...labels, status: String(status) });
      if (status !== upgradedStatus) this.#seconds.observe(elapsedMs, labels);
    });
  }

  collect(): Metric[] {
    return [
      this.#answers.collect(),
      this.#refused.collect(),
      this.#seconds.collect(),
      gauge("forkd_http_requests_in_flight", "Requests without their answer.", this.#inFlight),
    ];
  }
}

/** The pattern of the route table, never what a client wrote; `other` for what matches none. */
function routeOf({ method, routeOptions }: FastifyRequest): { method: string; route: string } {
  const { url } = routeOptions;
  return url === undefined ? { method: "other", route: "other" } : { method, route: url };
}
