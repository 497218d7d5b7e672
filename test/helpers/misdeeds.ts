import { encodeFrame, frameHeaderBytes, frameType } from "@forkd/host/agent/frame.ts";
import {
  type Answer,
  execReply,
  helloReply,
  identityReply,
  type PlayedAgent,
} from "./played-agent.ts";

/**
 * What becomes of the call.
 *
 * - `cut`: the session ends at once, and the guest with it when it does that again
 * - `refused`: the answer is no answer; the guest may try again
 * - `late`: nothing comes, or without end; the call's own deadline ends it
 */
export type Consequence = "cut" | "refused" | "late";

/** How a guest answers an exec that means no good to its host. */
export interface Misdeed {
  readonly consequence: Consequence;
  readonly act: Answer;
}

const cut = (act: Answer): Misdeed => ({ consequence: "cut", act });
const late = (act: Answer): Misdeed => ({ consequence: "late", act });

/** An answer in one reply frame of these bytes. */
const refused = (text: string | Uint8Array): Misdeed => ({
  consequence: "refused",
  act: (agent, _, stream) => {
    agent.reply(stream, Buffer.from(text));
  },
});

/** A frame of a type, or of a stream, where it does not belong. */
const wrong = (type: number, payload: string | Uint8Array = "{}", offset = 0): Misdeed =>
  cut((agent, _, stream) => {
    agent.send(type, stream + offset, Buffer.from(payload));
  });

const header = (length: number, typeWord: number, stream: number): Buffer => {
  const bytes = Buffer.alloc(frameHeaderBytes);
  bytes.writeUInt32LE(length, 0);
  bytes.writeUInt32LE(typeWord, 4);
  bytes.writeUInt32LE(stream, 8);
  return bytes;
};

const window = (bytes: number): Buffer => {
  const word = Buffer.alloc(4);
  word.writeUInt32LE(bytes);
  return word;
};

const floodBytes = 64 * 1024;

/** As many frames as make up one write. */
function flood(agent: PlayedAgent, frame: Uint8Array): void {
  agent.flood(Buffer.concat(Array(Math.ceil(floodBytes / frame.length)).fill(frame)));
}

const reply = JSON.stringify(execReply);
const deep = `${"[".repeat(30_000)}${"]".repeat(30_000)}`;

export const misdeeds: Readonly<Record<string, Misdeed>> = {
  "bytes that are no frame": cut((agent) => agent.raw(Buffer.alloc(4096, 0xff))),
  "a length over the bound": cut((agent, _, stream) => agent.raw(header(65_537, 2, stream))),
  "the largest length": cut((agent, _, stream) => agent.raw(header(0xffff_ffff, 2, stream))),
  "reserved bytes that are set": cut((agent, _, stream) => agent.raw(header(0, 0x102, stream))),
  "type zero": cut((agent, _, stream) => agent.raw(header(0, 0, stream))),
  "a type that nobody knows": wrong(200),
  "a request of the guest's": wrong(frameType.request),
  "input for the host": wrong(frameType.stdin),
  "a signal for the host": wrong(frameType.signal, window(9)),
  "output of a stream that nobody opened": wrong(frameType.stdout, "x", 1000),
  "an answer to what was never asked": wrong(frameType.reply, reply, 1000),
  "a failure of what was never asked": wrong(frameType.error, "{}", 1000),
  "an event without a request": wrong(frameType.event, '{"event":"started"}', 1000),
  "the hello once more": cut((agent) => agent.reply(0, helloReply)),
  "two answers": cut((agent, _, stream) => {
    agent.raw(header(200, frameType.stdout, stream));
    agent.raw(Buffer.alloc(200));
    for (let i = 0; i < 2; i += 1) agent.reply(stream, execReply);
  }),
  "output after the answer": cut((agent, _, stream) => {
    agent.reply(stream, execReply);
    agent.send(frameType.stdout, stream, Buffer.from("late"));
  }),
  "empty output": wrong(frameType.stdout, ""),
  "credit for what was not sent": wrong(frameType.window, window(1)),
  "no credit at all": wrong(frameType.window, window(0)),
  "all credit there is": wrong(frameType.window, window(0xffff_ffff)),
  "a window of three bytes": wrong(frameType.window, "abc"),
  "an event that is no JSON": wrong(frameType.event, "{"),
  "an event of another shape": wrong(frameType.event, '{"event":{"pid":1}}'),
  "an error that is no JSON": wrong(frameType.error, "{"),
  "an error of another shape": wrong(frameType.error, '{"code":7,"message":[]}'),
  "endless events": cut((agent, _, stream) =>
    flood(agent, encodeFrame(frameType.event, stream, Buffer.from('{"event":"result"}'))),
  ),
  "endless frames of a closed stream": cut((agent, _, stream) =>
    flood(agent, encodeFrame(frameType.stderr, stream + 1, Buffer.from("x"))),
  ),
  "hanging up": cut((agent) => agent.socket.destroy()),
  "an answer that is no JSON": refused("{"),
  "an answer that is no text": refused(Buffer.alloc(1000, 0xc0)),
  "an empty answer": refused(""),
  "an answer that is a list": refused("[]"),
  "an answer that is null": refused("null"),
  "an answer with a number beyond all": refused(reply.replace(":1}", ":1e999}")),
  "an answer with a huge exit code": refused(reply.replace(":0,", ":1e300,")),
  "an answer with a long signal": refused(reply.replace("null", `"${"S".repeat(60_000)}"`)),
  "an answer as deep as it can be": refused(deep),
  "an answer with deep rubbish": refused(reply.replace(":1}", `:"x","a":${deep}}`)),
  "an answer that is a prototype": refused('{"__proto__":{"exit_code":0}}'),
  silence: late(() => undefined),
  "no reading": late((agent) => agent.socket.pause()),
  "half a frame": late((agent, _, stream) => {
    agent.raw(header(100, frameType.reply, stream));
    agent.raw(Buffer.alloc(10));
  }),
  "an answer byte by byte": late((agent, _, stream) => {
    const padded = Buffer.from(reply.padEnd(60_000));
    agent.drip(encodeFrame(frameType.reply, stream, padded), 20);
  }),
  "endless output": late((agent, _, stream) => {
    flood(agent, encodeFrame(frameType.stdout, stream, Buffer.alloc(65_536, 97)));
  }),
  "endless output in single bytes": late((agent, _, stream) => {
    flood(agent, encodeFrame(frameType.stdout, stream, Buffer.from("a")));
  }),
};

/** How a guest answers before it may be used; none of these may be opened. */
export const falseIdentities: Readonly<Record<string, Readonly<Record<string, Answer>>>> = {
  "silence at the hello": { hello: () => undefined },
  "a flood at the hello": { hello: (agent) => agent.flood(Buffer.alloc(floodBytes, 1)) },
  "a hello of another protocol": {
    hello: (agent, op, stream) => {
      agent.raw(Buffer.from(String(op["echo_b64"]), "base64"));
      agent.reply(stream, { ...helloReply, protocol: 2 });
    },
  },
  "another host name": lies({ hostname: "other" }),
  "another machine": lies({ machine_id: "0".repeat(32) }),
  "another generation": lies({ generation: 7 }),
  "no new entropy": lies({ crng_reseeded: false }),
  "a clock that is no number": lies({ clock_skew_after_ms: "now" }),
  "steps without end": lies({ steps_ms: { x: 1e308, y: 1e308 } }),
  "half an identity": {
    identity: (agent, op, stream) => {
      agent.reply(stream, { hostname: op["hostname"] });
    },
  },
  "silence at the identity": { identity: () => undefined },
};

function lies(changes: object): Readonly<Record<string, Answer>> {
  return {
    identity: (agent, op, stream) => {
      agent.reply(stream, { ...identityReply(op), ...changes });
    },
  };
}
