import { type SnapshotInfo, toForkdError } from "@forkd/api";
import type { ForkService, SpawnedSandbox } from "../fork/service.ts";

export type WatchedOperation = "spawn" | "kill" | "branch" | "exec" | "eval";

/** Follows one operation. */
export interface OperationWatch {
  /** Of each child, before the end. */
  spawned(child: SpawnedSandbox): void;
  branched(snapshot: SnapshotInfo): void;
  /** `ok`, or the error's code; once, and last. */
  end(outcome: string): void;
}

/** Is told what a service does: for numbers and traces. It must not throw. */
export interface OperationWatcher {
  /** Before an operation, in the asynchronous context of who asks for it. */
  begin(operation: WatchedOperation): OperationWatch;
}

type Watched = Pick<
  ForkService,
  "spawn" | "kill" | "branch" | "exec" | "eval" | "evalStreamed" | "openExec"
>;
type Tell = (each: (watch: OperationWatch) => void) => void;

/** The same service, whose work is seen by watchers. */
export function watchService(
  service: ForkService,
  watchers: readonly OperationWatcher[],
): ForkService {
  const watch = async <T>(name: WatchedOperation, work: (tell: Tell) => Promise<T>) => {
    const watches = watchers.map((watcher) => watcher.begin(name));
    const tell: Tell = (each) => {
      for (const one of watches) each(one);
    };
    try {
      const result = await work(tell);
      tell((each) => each.end("ok"));
      return result;
    } catch (error) {
      tell((each) => each.end(toForkdError(error).code));
      throw error;
    }
  };
  const watched: Watched = {
    spawn: (request) =>
      watch("spawn", async (tell) => {
        const children = await service.spawn(request);
        for (const child of children) tell((each) => each.spawned(child));
        return children;
      }),
    kill: (id) => watch("kill", () => service.kill(id)),
    branch: (id, request) =>
      watch("branch", async (tell) => {
        const snapshot = await service.branch(id, request);
        tell((each) => each.branched(snapshot));
        return snapshot;
      }),
    exec: (id, request, signal) => watch("exec", () => service.exec(id, request, signal)),
    eval: (id, request, signal) => watch("eval", () => service.eval(id, request, signal)),
    evalStreamed: (id, request, followed) =>
      watch("eval", () => service.evalStreamed(id, request, followed)),
    openExec: async (id, request, sink) => {
      // Who comes back to a command does not start it again.
      if (request.type === "attach") return await service.openExec(id, request, sink);
      const opened = Promise.withResolvers<Awaited<ReturnType<ForkService["openExec"]>>>();
      // Watched to its end, shown from its begin.
      watch("exec", async () => {
        const exec = await service.openExec(id, request, sink);
        opened.resolve(exec);
        return await exec.ended;
      }).catch(opened.reject);
      return await opened.promise;
    },
  };
  return overlaid(service, watched);
}

/** Its methods stay its own: they may have private state. */
function overlaid(service: ForkService, over: Partial<ForkService>): ForkService {
  return new Proxy(service, {
    get: (target, name) => {
      if (Object.hasOwn(over, name)) return Reflect.get(over, name);
      const value: unknown = Reflect.get(target, name);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
}
