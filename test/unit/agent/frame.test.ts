import assert from "node:assert/strict";
import { test } from "node:test";
import {
  encodeFrame,
  FrameParser,
  framePayloadBytesMax,
  frameType,
} from "@forkd/host/agent/frame.ts";
import fc from "fast-check";

const frames = fc.array(
  fc.record({
    type: fc.constantFrom(...Object.values(frameType)),
    stream: fc.integer({ min: 0, max: 0xffff_ffff }),
    payload: fc.uint8Array({ maxLength: 300 }),
  }),
  { maxLength: 20 },
);

test("any frames, cut anywhere, come out as they went in", () => {
  fc.assert(
    fc.property(frames, fc.array(fc.nat(400), { maxLength: 60 }), (sent, cuts) => {
      let bytes = Buffer.concat(sent.map((f) => encodeFrame(f.type, f.stream, f.payload)));
      const parser = new FrameParser();
      const received = [];
      for (const cut of cuts) {
        received.push(...parser.push(bytes.subarray(0, cut)));
        bytes = bytes.subarray(cut);
      }
      received.push(...parser.push(bytes));
      const plain = (f: { type: number; stream: number; payload: Uint8Array }) => [
        f.type,
        f.stream,
        Buffer.from(f.payload).toString("hex"),
      ];
      assert.deepEqual(received.map(plain), sent.map(plain));
    }),
  );
});

test("random bytes give frames within the bound or an error, never more", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 4096 }), (bytes) => {
      try {
        for (const frame of new FrameParser().push(Buffer.from(bytes))) {
          assert.ok(frame.payload.length <= framePayloadBytesMax);
        }
      } catch (error) {
        assert.match(String(error), /no frame/);
      }
    }),
  );
});

test("a length over the bound is refused at its header, before any payload", () => {
  const header = Buffer.alloc(12);
  header.writeUInt32LE(framePayloadBytesMax + 1, 0);
  header.writeUInt8(frameType.stdout, 4);
  assert.throws(() => [...new FrameParser().push(header)], /no frame/);
});

test("reserved bytes that are not zero are refused", () => {
  const frame = encodeFrame(frameType.stdout, 1, Buffer.from("x"));
  frame.writeUInt8(1, 6);
  assert.throws(() => [...new FrameParser().push(frame)], /no frame/);
});

test("a payload over the bound cannot be sent", () => {
  assert.throws(() => encodeFrame(frameType.stdin, 1, Buffer.alloc(framePayloadBytesMax + 1)));
});
