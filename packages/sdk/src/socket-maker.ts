/** The part of the platform's WebSocket that is used. */
export type Socket = Pick<WebSocket, "addEventListener" | "binaryType" | "close" | "send">;
/** Makes a WebSocket, as `(url, protocols) => new WebSocket(url, protocols)` does. */
export type SocketMaker = (url: string, protocols: string[]) => Socket;
