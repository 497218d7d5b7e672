import { type SnapshotInfo, toForkdError } from "@forkd/api";
import type { ForkService, SpawnedSandbox } from "../fork/service.ts";

export type WatchedOperation = "spawn" | "kill" | "branch" | "exec" | "eval";

/** Is told what a service does: for numbers and traces. It must not throw. */
export interface OperationWatcher {
  /** Before an operation, in its asynchronous context; what it gives is told how that ended. */
  begin(operation: WatchedOperation): (outcome: string) => void;
  /** Of each child, before the operation's end. */
  spawned(child: SpawnedSandbox): void;
  branched(snapshot: SnapshotInfo): void;
}

type Watched = Pick<ForkService, "spawn" | "kill" | "branch" | "exec" | "eval" | "openExec">;

/** The same service, whose work is seen by watchers. */
export function watchService(
  service: ForkService,
  watchers: readonly OperationWatcher[],
): ForkService {
  const watch = async <T>(operation: WatchedOperation, work: () => Promise<T>): Promise<T> => {
    const ends = watchers.map((watcher) => watcher.begin(operation));
    const end = (outcome: string): void => {
      for (const each of ends) each(outcome);
    };
    try {
      const result = await work();
      end("ok");
      return result;
    } catch (error) {
      end(toForkdError(error).code);
      throw error;
    }
  };
  const watched: Watched = {
    spawn: (request) =>
      watch("spawn", async () => {
        const children = await service.spawn(request);
        for (const child of children) for (const each of watchers) each.spawned(child);
        return children;
      }),
    kill: (id) => watch("kill", () => service.kill(id)),
    branch: (id, request) =>
      watch("branch", async () => {
        const snapshot = await service.branch(id, request);
        for (const each of watchers) each.branched(snapshot);
        return snapshot;
      }),
    exec: (id, request, signal) => watch("exec", () => service.exec(id, request, signal)),
    eval: (id, request, signal) => watch("eval", () => service.eval(id, request, signal)),
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
      const own: unknown = Reflect.get(over, name);
      if (own !== undefined) return own;
      const value: unknown = Reflect.get(target, name);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
}
