import { randomBytes } from "node:crypto";
import {
  type ExecAttach,
  type ExecId,
  type ExecInfo,
  type ExecStart,
  parseExecId,
  type SandboxId,
} from "@forkd/api";
import { type ExecSink, ExecStream, forgetExec, listExecs } from "../agent/execs.ts";
import type { Sandboxes } from "./sandboxes.ts";
import type { OpenExec } from "./service.ts";

/** The commands of sandboxes that outlive who started them; the guests keep them. */
export class Execs {
  readonly #sandboxes: Pick<Sandboxes, "call">;

  constructor(sandboxes: Pick<Sandboxes, "call">) {
    this.#sandboxes = sandboxes;
  }

  async list(id: SandboxId): Promise<ExecInfo[]> {
    return await this.#sandboxes.call(id, listExecs);
  }

  /** Kills it, if it runs. Throws exec_not_found. */
  async forget(id: SandboxId, exec: ExecId): Promise<void> {
    await this.#sandboxes.call(id, (session) => forgetExec(session, exec));
  }

  /** Starts a command, or returns to one; how it goes on is told by the result's `ended`. */
  async open(id: SandboxId, request: ExecStart | ExecAttach, sink: ExecSink): Promise<OpenExec> {
    const opened = Promise.withResolvers<ExecStream>();
    const ended = this.#sandboxes.call(id, async (session) => {
      const exec = request.type === "attach" ? request.exec_id : newExecId();
      const stream = ExecStream.open(session, { request, id: exec }, sink);
      opened.resolve(stream);
      return await stream.ended;
    });
    ended.catch(opened.reject);
    const stream = await opened.promise;
    return { stream, ended };
  }
}

function newExecId(): ExecId {
  return parseExecId(`ex-${randomBytes(8).toString("hex")}`);
}
