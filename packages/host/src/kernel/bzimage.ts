import { readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { gunzip, zstdDecompress } from "node:zlib";
import { ForkdError } from "@forkd/api";
import { run } from "../lib/exec.ts";
import { isElf } from "./elf.ts";

/** Bytes of a compressed and of an uncompressed kernel; distributions stay far below. */
const imageBytesMax = 64 * 1024 * 1024;
const vmlinuxBytesMax = 256 * 1024 * 1024;
const decompressTimeoutMs = 60_000;

/** What the x86 boot header says (Linux Documentation/arch/x86/boot.rst, offsets from there). */
export interface BzImageHeader {
  /** Kernel release, for example 6.1.0-56-cloud-amd64. */
  readonly release: string;
  /** Where the compressed kernel lies in the file, bytes. */
  readonly payloadOffset: number;
  readonly payloadBytes: number;
}

const offsets = {
  setupSectors: 0x1f1,
  bootFlag: 0x1fe,
  magic: 0x202,
  protocol: 0x206,
  kernelVersion: 0x20e,
  payloadOffset: 0x248,
  payloadLength: 0x24c,
} as const;

const sectorBytes = 512;
/** payload_offset exists since this protocol version. */
const protocolMin = 0x0208;

/** Whether bytes begin like a bzImage. */
export function isBzImage(bytes: Buffer): boolean {
  return (
    bytes.length > offsets.payloadLength + 4 &&
    bytes.readUInt16LE(offsets.bootFlag) === 0xaa55 &&
    bytes.toString("latin1", offsets.magic, offsets.magic + 4) === "HdrS"
  );
}

/** Throws ForkdError image_invalid when the bytes are no bzImage with a payload inside it. */
export function parseBzImage(image: Buffer): BzImageHeader {
  if (!isBzImage(image)) throw invalid("it has no x86 boot header");
  if (image.readUInt16LE(offsets.protocol) < protocolMin)
    throw invalid("its boot header is too old");
  // Zero stands for four (boot.rst, setup_sects).
  const setupSectors = image.readUInt8(offsets.setupSectors) || 4;
  const protectedMode = (setupSectors + 1) * sectorBytes;
  const payloadOffset = protectedMode + image.readUInt32LE(offsets.payloadOffset);
  const payloadBytes = image.readUInt32LE(offsets.payloadLength);
  if (payloadBytes < 16 || payloadOffset + payloadBytes > image.length) {
    throw invalid("its payload lies outside the file");
  }
  return { release: readRelease(image), payloadOffset, payloadBytes };
}

function readRelease(image: Buffer): string {
  // The text lies 0x200 after the value of the field, which is 0 when there is none.
  const start = image.readUInt16LE(offsets.kernelVersion) + sectorBytes;
  const text = image.toString("latin1", start, start + 128);
  return /^[A-Za-z0-9._+~-]+/.exec(text)?.[0] ?? "";
}

type Codec = "gzip" | "zstd" | "xz" | "lzma" | "lz4";

const codecMagics: readonly (readonly [Codec, string])[] = [
  ["gzip", "1f8b08"],
  ["zstd", "28b52ffd"],
  ["xz", "fd377a585a00"],
  ["lzma", "5d0000"],
  ["lz4", "02214c18"],
];

/** Undefined for a compression that we do not know. */
export function detectCodec(payload: Buffer): Codec | undefined {
  return codecMagics.find(
    ([, magic]) => payload.toString("hex", 0, magic.length / 2) === magic,
  )?.[0];
}

/**
 * The uncompressed ELF kernel inside a bzImage file, for engines that cannot boot the compressed
 * one. `scratchDir` takes temporary files. Throws image_invalid for a file that is no such image,
 * tool_missing when its compression needs a program that is not installed.
 */
export async function extractVmlinux(imagePath: string, scratchDir: string): Promise<Buffer> {
  const image = await readFile(imagePath);
  if (image.length > imageBytesMax) throw invalid(`it is larger than ${imageBytesMax} bytes`);
  const { payloadOffset, payloadBytes } = parseBzImage(image);
  const payload = image.subarray(payloadOffset, payloadOffset + payloadBytes);
  const codec = detectCodec(payload);
  if (codec === undefined) throw invalid("its compression is unknown");
  const vmlinux = await decompress(codec, payload, scratchDir);
  if (!isElf(vmlinux)) throw invalid("what it decompresses to is no ELF file");
  return vmlinux;
}

async function decompress(codec: Codec, payload: Buffer, scratchDir: string): Promise<Buffer> {
  const options = { maxOutputLength: vmlinuxBytesMax };
  if (codec === "gzip") return promisify(gunzip)(payload, options);
  // The other formats are followed by the uncompressed size, four bytes (boot.rst, payload_length).
  const body = payload.subarray(0, -4);
  if (codec === "zstd") return promisify(zstdDecompress)(body, options);
  return decompressByProgram(codec, body, scratchDir);
}

async function decompressByProgram(
  codec: "xz" | "lzma" | "lz4",
  body: Buffer,
  scratchDir: string,
): Promise<Buffer> {
  const plain = join(scratchDir, "payload");
  const packed = `${plain}.${codec}`;
  const bounded = ["prlimit", `--fsize=${vmlinuxBytesMax}`];
  const tool =
    codec === "lz4"
      ? ["lz4", "-d", "-f", packed, plain]
      : ["xz", "--decompress", "--force", `--format=${codec}`, packed];
  try {
    await writeFile(packed, body, { mode: 0o600 });
    await run([...bounded, ...tool], { timeoutMs: decompressTimeoutMs });
    return await readFile(plain);
  } finally {
    await rm(packed, { force: true });
    await rm(plain, { force: true });
  }
}

function invalid(why: string): ForkdError {
  return new ForkdError("image_invalid", `the kernel image cannot be used: ${why}`, {
    hint: "give a bzImage or vmlinux, or install one with: forkd kernel install",
  });
}
