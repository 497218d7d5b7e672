import { ForkdError } from "@forkd/api";
import type { FastifyInstance } from "fastify";
import { isErrno } from "../lib/atomic.ts";
import { findListener } from "../linux/listener.ts";
import { type Bind, formatBind } from "./bind.ts";

/** Listens and tells where, with the port that the kernel chose for 0. Throws address_in_use. */
export async function listen(app: FastifyInstance, bind: Bind): Promise<Bind> {
  try {
    // biome-ignore lint/nursery/useAwaitThenable: Fastify's own thenable type.
    await app.listen({ host: bind.host, port: bind.port });
  } catch (error) {
    throw await explainListen(error, bind);
  }
  const address = app.server.address();
  if (address === null || typeof address === "string") return bind;
  return { host: bind.host, port: address.port };
}

async function explainListen(thrown: unknown, bind: Bind): Promise<unknown> {
  const where = formatBind(bind);
  if (isErrno(thrown, "EADDRINUSE")) {
    const owner = await findListener(bind.port);
    const who = owner === undefined ? "another program" : `process ${owner.pid} (${owner.command})`;
    return new ForkdError("address_in_use", `${who} listens on ${where} already`, {
      cause: thrown,
    });
  }
  if (isErrno(thrown, "EADDRNOTAVAIL") || isErrno(thrown, "ENOTFOUND")) {
    const reason = `${where} is not an address of this host`;
    return new ForkdError("config_invalid", reason, { cause: thrown });
  }
  return thrown;
}
