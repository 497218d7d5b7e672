import assert from "node:assert/strict";
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { type ErrorCode, problemSchema } from "@forkd/api";

const deadlineMs = 10_000;

/** Sends bytes as they are and gives all that the server sent until it closed the connection. */
export function rawHttp(port: number, ...parts: readonly (string | Buffer)[]): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect(port, "127.0.0.1");
    let answer = "";
    const timer = setTimeout(() => {
      socket.destroy();
      reject(new Error(`the server kept the connection open; so far it sent: ${answer}`));
    }, deadlineMs);
    socket.setEncoding("utf8");
    socket.on("data", (text: string) => {
      answer += text;
    });
    // A server that refuses a large body may reset the connection after its answer.
    socket.on("error", () => undefined);
    socket.on("close", () => {
      clearTimeout(timer);
      resolve(answer);
    });
    for (const part of parts) socket.write(part);
  });
}

/** The JSON body of a raw answer. */
export function rawBody(answer: string): unknown {
  return JSON.parse(answer.slice(answer.indexOf("\r\n\r\n") + 4));
}

/** The head of a request from its lines, as they are, with the empty line behind it. */
export function rawHead(...lines: readonly string[]): string {
  return [...lines, "", ""].join("\r\n");
}

/** A whole GET whose connection ends with its answer. */
export function rawGet(path: string, ...headers: readonly string[]): string {
  return rawHead(`GET ${path} HTTP/1.1`, "Host: localhost", "Connection: close", ...headers);
}

/** Statuses of all answers in what a server sent, but for interim ones. */
export function rawStatuses(answer: string): number[] {
  const all = [...answer.matchAll(/HTTP\/1\.1 (\d{3}) /g)].map(([, status]) => Number(status));
  return all.filter((status) => status >= 200);
}

/** Fails unless a raw answer is this failure, in the shape of every failure. */
export function assertRawProblem(answer: string, status: number, code: ErrorCode): void {
  assert.match(answer, new RegExp(`^HTTP/1\\.1 ${status} `), answer.slice(0, 200));
  assert.equal(problemSchema.parse(rawBody(answer)).code, code, answer);
}

/** An open connection that has sent this much. Close it yourself. */
export async function rawConnection(port: number, text = ""): Promise<Socket> {
  const socket = connect(port, "127.0.0.1");
  await once(socket, "connect");
  socket.on("error", () => undefined);
  if (text !== "") socket.write(text);
  return socket;
}
