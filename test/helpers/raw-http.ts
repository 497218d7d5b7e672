import { connect } from "node:net";

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
