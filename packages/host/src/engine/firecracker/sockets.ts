import { watch } from "node:fs";
import { chown, rm } from "node:fs/promises";
import { connect, createServer, type Socket } from "node:net";
import { join } from "node:path";
import { ForkdError } from "@forkd/api";
import { withDeadline } from "../../lib/deadline.ts";
import { agentPort, type JailUser, vmFiles } from "./files.ts";

const connectTimeoutMs = 10_000;

/** A name that will appear in a directory; the kernel tells when. */
export interface Appearance extends Disposable {
  readonly happened: Promise<void>;
}

/** Ask for it before the program that makes the name is started; one that is there counts not. */
export function watchFor(dir: string, name: string): Appearance {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const watcher = watch(dir, { persistent: false }, (_, seen) => {
    if (seen === name) resolve();
  });
  watcher.on("error", reject);
  promise.catch(() => undefined);
  return { happened: promise, [Symbol.dispose]: () => watcher.close() };
}

/** Throws engine_failed, deadline_exceeded. */
export function connectTo(path: string, what: string): Promise<Socket> {
  const socket = connect(path);
  const opened = new Promise<Socket>((resolve, reject) => {
    socket.once("connect", () => resolve(socket));
    socket.once("error", (error) => {
      const message = `${what} takes no connection: ${error.message}`;
      reject(new ForkdError("engine_failed", message, { cause: error }));
    });
  });
  opened.catch(() => socket.destroy());
  return withDeadline(opened, connectTimeoutMs, `connecting to ${what}`);
}

/** Where a fresh guest says that its agent listens: Firecracker's name for a port of the host. */
export interface Knock extends AsyncDisposable {
  /** Resolves at the first connection of the guest. */
  readonly heard: Promise<void>;
}

export async function listenForKnock(dir: string, user: JailUser | null): Promise<Knock> {
  const path = join(dir, `${vmFiles.vsock}_${agentPort}`);
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const server = createServer((socket) => {
    socket.on("error", () => undefined);
    socket.destroy();
    resolve();
  });
  server.maxConnections = 1;
  await new Promise<void>((listening, failed) => {
    server.once("error", failed);
    server.listen(path, listening);
  });
  server.on("error", reject);
  server.unref();
  if (user !== null) await chown(path, user.uid, user.gid);
  promise.catch(() => undefined);
  return {
    heard: promise,
    [Symbol.asyncDispose]: async () => {
      server.close();
      await rm(path, { force: true });
    },
  };
}
