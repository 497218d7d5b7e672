import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { open, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { createInterface, type Interface } from "node:readline";
import type { MemoryOverlay } from "@forkd/host/engine/engine.ts";
import { findProcess } from "@forkd/host/linux/proc.ts";
import {
  copyExtents,
  createSparse,
  type Extent,
  readExtents,
  writeExtents,
} from "../../conformance/layers.ts";
import { repoRoot } from "../../helpers/baked.ts";
import { makeTmpDir, type TmpDir } from "../../helpers/tmp.ts";

export const ramBytes = 32 * 1024 * 1024;
const pageBytes = 4096;
const checkedDir = join(repoRoot, "native/build/checked");

export type CaptureLine = Readonly<Record<string, unknown>> & { readonly event: string };

/** A fake VMM and a directory for what is captured of it. */
export class CaptureBench implements AsyncDisposable {
  readonly #dir: TmpDir;
  readonly #vmm: ChildProcess;
  readonly #gone: Promise<unknown>;
  /** The commands that the VMM was sent. */
  readonly commands: string[] = [];

  private constructor(dir: TmpDir, vmm: ChildProcess) {
    this.#dir = dir;
    this.#vmm = vmm;
    this.#gone = once(vmm, "exit");
  }

  /** Starts native/test/fake-vmm.c with options of its own, and with an overlay of `extents`. */
  static async start(
    options: readonly string[] = [],
    extents: readonly Extent[] = [],
  ): Promise<CaptureBench> {
    const dir = await makeTmpDir("capture");
    const file = (name: string): string => join(dir.path, name);
    await writeFile(file("base"), sampleRam());
    const overlay = { file: file("overlay"), extents: file("overlay.extents") };
    await writeOverlay(overlay, extents);
    const layers = [`overlay=${overlay.file}`, `extents=${overlay.extents}`];
    const all = extents.length === 0 ? options : [...options, ...layers];
    const args = [file("capture.sock"), file("base"), String(ramBytes), file("truth"), ...all];
    const vmm = spawn(join(checkedDir, "fake-vmm"), args, { stdio: ["pipe", "pipe", "inherit"] });
    vmm.stdin.on("error", () => undefined);
    const bench = new CaptureBench(dir, vmm);
    const lines = createInterface({ input: vmm.stdout });
    lines.on("line", (line) => bench.commands.push(line));
    await once(lines, "line");
    return bench;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#vmm.stdin?.end();
    await this.#gone;
    await this.#dir[Symbol.asyncDispose]();
  }

  path(name: string): string {
    return join(this.#dir.path, name);
  }

  get startTicks(): number {
    return findProcess(this.pid)?.startTicks ?? assert.fail();
  }

  get pid(): number {
    return this.#vmm.pid ?? assert.fail();
  }

  kill(): void {
    this.#vmm.kill("SIGKILL");
  }

  /** Starts a capture that checks its own memory. Options may replace the usual ones. */
  capture(...options: readonly string[]): RunningCapture {
    const usual = [
      ...["--pid", String(this.pid), "--start-ticks", String(this.startTicks)],
      ...[
        "--monitor",
        this.path("capture.sock"),
        "--ram-size",
        String(ramBytes),
        "--mode",
        "stopped",
      ],
      ...["--vmstate", this.path("vmstate"), "--pages", this.path("pages")],
      ...["--extents", this.path("extents"), "--base", this.path("base"), "--no-sync"],
    ];
    return new RunningCapture([...usual, ...options]);
  }

  /** What is there of a capture. */
  async outputs(): Promise<string[]> {
    const names = await readdir(this.#dir.path);
    return names.filter((name) => ["vmstate", "pages", "extents"].includes(name));
  }

  /** What the VMM mapped. */
  async image(): Promise<Buffer> {
    return this.#layered("overlay", "overlay.extents");
  }

  /** The RAM that a capture describes, whole. */
  async restored(): Promise<Buffer> {
    return this.#layered("overlay", "overlay.extents", "pages", "extents");
  }

  async #layered(...files: readonly string[]): Promise<Buffer> {
    const whole = this.path("whole");
    await writeFile(whole, await readFile(this.path("base")));
    for (let at = 0; at < files.length; at += 2) {
      const [file = "", table = ""] = files.slice(at, at + 2);
      await copyExtents(this.path(file), whole, await readExtents(this.path(table)));
    }
    return readFile(whole);
  }

  truth(): Promise<Buffer> {
    return readFile(this.path("truth"));
  }

  /** The last of the two says whether the VM stands. */
  get stopsAndConts(): string[] {
    return this.commands.filter((command) => command === "stop" || command === "cont");
  }
}

/** A forkd-capture that runs: its events one by one, its input, its end. */
export class RunningCapture {
  readonly #child: ChildProcess;
  readonly #lines: AsyncIterator<string>;
  readonly #interface: Interface;
  readonly #exit: Promise<unknown[]>;
  #stderr = "";

  constructor(args: readonly string[]) {
    const env = { ASAN_OPTIONS: "detect_leaks=0:exitcode=99", UBSAN_OPTIONS: "exitcode=99" };
    this.#child = spawn(join(checkedDir, "forkd-capture"), args, { env, stdio: "pipe" });
    this.#exit = once(this.#child, "close");
    this.#child.stderr?.setEncoding("utf8").on("data", (text: string) => {
      this.#stderr += text;
    });
    this.#interface = createInterface({ input: this.#child.stdout ?? assert.fail() });
    this.#lines = this.#interface[Symbol.asyncIterator]();
  }

  /** The next event, which must be this one. */
  async expect(event: string): Promise<CaptureLine> {
    const { value, done } = await this.#lines.next();
    assert.ok(done !== true, `no event ${event} but the end: ${this.#stderr}`);
    // What the program prints is what is tested: each use checks its fields.
    const line = JSON.parse(value) as CaptureLine;
    assert.equal(line.event, event, value);
    return line;
  }

  go(): void {
    this.#child.stdin?.write("go\n");
  }

  closeInput(): void {
    this.#child.stdin?.end();
  }

  terminate(): void {
    this.#child.kill("SIGTERM");
  }

  /** The exit code, after the program has said all it had to. */
  async end(): Promise<number> {
    const [code] = await this.#exit;
    assert.doesNotMatch(this.#stderr, /Sanitizer|runtime error/);
    return Number(code);
  }

  /** Runs to the end as a caller with nothing to hold does. */
  async finish(): Promise<CaptureLine> {
    await this.expect("ready");
    this.go();
    await this.expect("resumed");
    const done = await this.expect("done");
    assert.equal(await this.end(), 0);
    return done;
  }

  /** The error that it ends with, which has this code. */
  async fails(code: string): Promise<CaptureLine> {
    const error = await this.expect("error");
    assert.equal(error["code"], code, JSON.stringify(error));
    assert.equal(await this.end(), 1);
    return error;
  }
}

/** A RAM with pages of zeros and pages of numbers. */
function sampleRam(): Buffer {
  const ram = Buffer.alloc(ramBytes);
  for (let at = 0; at < ramBytes; at += pageBytes) {
    if ((at / pageBytes) % 3 !== 0) ram.fill(at / pageBytes, at, at + pageBytes);
  }
  return ram;
}

/** Offsets of the pages in which two images differ. */
export function differingPages(a: Buffer, b: Buffer): number[] {
  const pages = Array.from({ length: ramBytes / pageBytes }, (_, index) => index * pageBytes);
  const isSame = (at: number): boolean =>
    a.subarray(at, at + pageBytes).equals(b.subarray(at, at + pageBytes));
  return pages.filter((at) => !isSame(at));
}

/** Offsets of the pages that a table of extents names. */
export async function pagesIn(extents: string): Promise<number[]> {
  return (await readExtents(extents)).flatMap(({ offset, length }) => {
    return Array.from({ length: length / pageBytes }, (_, index) => offset + index * pageBytes);
  });
}

async function writeOverlay(overlay: MemoryOverlay, extents: readonly Extent[]): Promise<void> {
  await createSparse(overlay.file, ramBytes);
  await using handle = await open(overlay.file, "r+");
  for (const { offset, length } of extents) {
    await handle.write(Buffer.alloc(length, 0xab), 0, length, offset);
  }
  await writeExtents(overlay.extents, extents);
}
