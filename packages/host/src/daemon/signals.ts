import type { EventEmitter } from "node:events";

/** What a daemon is told from outside while it runs. */
export interface DaemonSignals {
  /** SIGTERM, SIGINT: no new connections, requests in flight finish within the drain's bound. */
  readonly stop: AbortSignal;
  /** A second one of them cuts the drain short. */
  readonly hurry: AbortSignal;
  /** SIGUSR2, sent by `forkd-controller drain`: stop, and end every sandbox too. */
  readonly endSandboxes: AbortSignal;
  /** SIGHUP: read again what is configured. One that came earlier is told at once. */
  onReload(listener: () => void): void;
}

/** Takes these signals from now on, so that none of them ends a daemon that is still starting. */
export function watchSignals(source: EventEmitter): DaemonSignals {
  const [stop, hurry, end] = [new AbortController(), new AbortController(), new AbortController()];
  const onStop = (): void => (stop.signal.aborted ? hurry : stop).abort();
  let isReloadAsked = false;
  let reload = (): void => {
    isReloadAsked = true;
  };
  source.on("SIGTERM", onStop);
  source.on("SIGINT", onStop);
  source.on("SIGUSR2", () => {
    end.abort();
    stop.abort();
  });
  source.on("SIGHUP", () => reload());
  return {
    stop: stop.signal,
    hurry: hurry.signal,
    endSandboxes: end.signal,
    onReload: (listener) => {
      reload = listener;
      if (isReloadAsked) listener();
    },
  };
}
