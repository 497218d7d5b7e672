/** The examples of a document: its programs, and what it says that they print. */
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { runChild } from "../runner/child.ts";
import { repoRoot } from "./baked.ts";

interface Block {
  readonly language: string;
  readonly text: string;
  /** The last heading above it. */
  readonly heading: string;
}

export interface Example {
  readonly heading: string;
  readonly program: string;
  readonly prints: string;
}

/** The fenced blocks of a document of docs/. */
export function blocksOf(document: string): Block[] {
  const text = readFileSync(join(repoRoot, "docs", document), "utf8");
  const parts = text.matchAll(/^#+ (.+)$|^```(\w+)\n([\s\S]*?)^```$/gm);
  const blocks: Block[] = [];
  let heading = "";
  for (const [, title, language, body = ""] of parts) {
    if (title !== undefined) heading = title;
    else blocks.push({ language: language ?? "", text: body, heading });
  }
  return blocks;
}

/** Each `ts` block, with the `text` block that must follow it. Throws for one without. */
export function examplesOf(document: string): Example[] {
  const blocks = blocksOf(document);
  return blocks.flatMap((block, index) => {
    if (block.language !== "ts") return [];
    const next = blocks[index + 1];
    if (next?.language === "text" && next.heading === block.heading) {
      return [{ heading: block.heading, program: block.text, prints: next.text }];
    }
    throw new Error(`${document}: the example of "${block.heading}" does not say what it prints`);
  });
}

/** The tag that documents name, which every user of the quick start has. */
const documentedTag = "quickstart";
const exampleTimeoutMs = 120_000;

export interface ProgramEnd {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** A directory inside the checkout, so that programs find its packages. */
export class ExampleDir implements Disposable {
  readonly path: string;

  constructor(name: string) {
    this.path = join(repoRoot, ".cache/doc-examples", `${name}-${process.pid}`);
    mkdirSync(this.path, { recursive: true });
    const config = {
      extends: join(repoRoot, "tsconfig.base.json"),
      compilerOptions: {
        ...{ composite: false, noEmit: true, allowImportingTsExtensions: true },
        noPropertyAccessFromIndexSignature: false,
      },
      include: ["*.ts"],
    };
    writeFileSync(join(this.path, "tsconfig.json"), JSON.stringify(config));
    writeFileSync(join(this.path, "package.json"), JSON.stringify({ type: "module" }));
  }

  /** Writes an example, for the snapshot `tag`, and gives its file. */
  write(index: number, { program }: Example, tag: string): string {
    const file = join(this.path, `example-${index}.ts`);
    const named = program.replaceAll(JSON.stringify(documentedTag), JSON.stringify(tag));
    writeFileSync(file, `${named}\nexport {};\n`);
    return file;
  }

  /** What the type checker says of all that was written. */
  check(): Promise<ProgramEnd> {
    return run([join(repoRoot, "node_modules/.bin/tsc"), "-p", this.path], {});
  }

  [Symbol.dispose](): void {
    rmSync(this.path, { recursive: true, force: true });
  }
}

/** Runs an example as its reader would, with forkd's programs on the path. */
export function runExample(
  file: string,
  env: Readonly<Record<string, string>>,
): Promise<ProgramEnd> {
  const path = `${join(repoRoot, "bin")}:${process.env["PATH"]}`;
  return run([join(repoRoot, "scripts/node"), file], { ...env, PATH: path });
}

async function run(
  argv: readonly string[],
  env: Readonly<Record<string, string>>,
): Promise<ProgramEnd> {
  const text = { stdout: "", stderr: "" };
  const end = await runChild(argv, {
    cwd: repoRoot,
    env: { ...process.env, NO_COLOR: "1", ...env },
    deadlineMs: exampleTimeoutMs,
    onStdoutLine: (line) => {
      text.stdout += `${line}\n`;
    },
    onStderrLine: (line) => {
      text.stderr += `${line}\n`;
    },
  });
  return { code: end.code, ...text };
}
