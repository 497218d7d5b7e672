import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { buildFakes } from "./fake-firecracker.ts";

/**
 * A guest that needs no Linux: some instructions that print a line on the first serial port, then
 * look at their processor and count for ever. Firecracker starts a kernel in 64-bit mode with the
 * first GiB mapped one to one, at its entry point.
 */

const words = "forkd-tiny runs\n";
const loadAddress = 0x100000;
const wordsAt = 64;
const counterAt = 128;
const featuresAt = 136;
const imageBytes = 256;

/** A guest for a real Firecracker, which says some words on its console and then counts. */
export interface TinyGuest {
  /** An ELF kernel. */
  readonly elf: Buffer;
  readonly words: string;
  /** Where its counter lies in the RAM: 64 bits, little-endian. */
  readonly counterOffset: number;
}

/** One that counts as fast as it can. */
export function countingGuest(): TinyGuest {
  return { elf: writeTinyGuest(), words, counterOffset: loadAddress + counterAt };
}

/**
 * Where a {@link countingGuest} has ECX of CPUID's leaf 1. It looks once, before it counts: a look
 * is an exit, and nothing but exits would take all of a nested host's time.
 */
export const featuresOffset = loadAddress + featuresAt;

const progress = 0x180000;
/** Where a {@link diskGuest} has the number that it has asked its disk to take. */
export const askedOffset = progress;

/**
 * One that writes numbers to the first sector of its disk, and counts those that are done; see
 * test/fakes/firecracker/disk-guest.c. Needs a compiler.
 */
export async function diskGuest(): Promise<TinyGuest> {
  const elf = await readFile(join(await buildFakes("build/disk-guest"), "disk-guest"));
  return { elf, words: "forkd-disk runs\n", counterOffset: progress + 8 };
}

/** x86_64 machine code; the numbers behind instructions are distances from the next one. */
function code(): Buffer {
  const lea = Buffer.alloc(4);
  lea.writeInt32LE(wordsAt - 11);
  const mov = Buffer.alloc(4);
  mov.writeInt32LE(featuresAt - 34);
  const inc = Buffer.alloc(4);
  inc.writeInt32LE(counterAt - 41);
  return Buffer.concat([
    Buffer.from([0x66, 0xba, 0xf8, 0x03]), // mov dx, 0x3f8
    Buffer.from([0x48, 0x8d, 0x35]), // lea rsi, [rip + words]
    lea,
    Buffer.from([0xac]), // next: lodsb
    Buffer.from([0x84, 0xc0]), // test al, al
    Buffer.from([0x74, 0x03]), // jz look
    Buffer.from([0xee]), // out dx, al
    Buffer.from([0xeb, 0xf8]), // jmp next
    Buffer.from([0xb8, 0x01, 0x00, 0x00, 0x00]), // look: mov eax, 1
    Buffer.from([0x31, 0xc9]), // xor ecx, ecx
    Buffer.from([0x0f, 0xa2]), // cpuid
    Buffer.from([0x89, 0x0d]), // mov [rip + features], ecx
    mov,
    Buffer.from([0x48, 0xff, 0x05]), // count: inc qword [rip + counter]
    inc,
    Buffer.from([0xf3, 0x90]), // pause
    Buffer.from([0xeb, 0xf5]), // jmp count
  ]);
}

/** The guest as an ELF kernel (System V ABI) with one segment that is loaded at 1 MiB. */
export function writeTinyGuest(): Buffer {
  const headerBytes = 64 + 56;
  const image = Buffer.alloc(imageBytes);
  code().copy(image);
  image.write(words, wordsAt, "latin1");
  const header = Buffer.alloc(headerBytes);
  header.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
  header.writeUInt16LE(2, 16); // an executable
  header.writeUInt16LE(62, 18); // x86_64
  header.writeUInt32LE(1, 20);
  header.writeBigUInt64LE(BigInt(loadAddress), 24); // entry
  header.writeBigUInt64LE(64n, 32); // program headers
  header.writeUInt16LE(64, 52);
  header.writeUInt16LE(56, 54);
  header.writeUInt16LE(1, 56);
  header.writeUInt16LE(64, 58);
  const segment = header.subarray(64);
  segment.writeUInt32LE(1, 0); // loaded
  segment.writeUInt32LE(7, 4); // read, write, execute
  segment.writeBigUInt64LE(BigInt(headerBytes), 8);
  segment.writeBigUInt64LE(BigInt(loadAddress), 16);
  segment.writeBigUInt64LE(BigInt(loadAddress), 24);
  segment.writeBigUInt64LE(BigInt(imageBytes), 32);
  segment.writeBigUInt64LE(BigInt(imageBytes), 40);
  segment.writeBigUInt64LE(16n, 48);
  return Buffer.concat([header, image]);
}
