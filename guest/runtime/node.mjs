// The warm Node of a guest: evaluates code that the agent sends over descriptor 3, one JSON object
// a line both ways (docs/guest-protocol.md, "Runtimes"). Node 16 or newer, no dependencies.
// Arguments: modules to import; each becomes a global named after it.
import crypto from "node:crypto";
import fs from "node:fs";
import { createRequire, syncBuiltinESMExports } from "node:module";
import net from "node:net";
import path from "node:path";
import repl from "node:repl";
import { PassThrough, Writable } from "node:stream";
import { fileURLToPath, pathToFileURL } from "node:url";
import util from "node:util";
import vm from "node:vm";

const LINE_BYTES_MAX = 4 * 1024 * 1024;
/** A text that does not fit a line is cut to this many characters, which do, however escaped. */
const TEXT_CHARS_MAX = 96 * 1024;
/** As many draws as empty the caches that node:crypto keeps (128 UUIDs, 6 KiB for randomInt). */
const UUID_DRAWS = 128;
const INT_DRAWS = 1025;

const channel = new net.Socket({ fd: 3 });
const here = path.dirname(fileURLToPath(import.meta.url));

/**
 * Math.random that can be reseeded: V8 gives no way to do that with its own. xoshiro128**, whose
 * authors put it in the public domain; 53 bits from two outputs, as V8's has 52.
 */
const state = new Uint32Array(4);

function seedMathRandom(seed) {
  const words = new Uint32Array(Uint8Array.from(seed.subarray(0, 16)).buffer);
  state.set(words);
  if (state.every((word) => word === 0)) state[0] = 1;
}

function nextWord() {
  const x = Math.imul(state[1], 5);
  const result = Math.imul((x << 7) | (x >>> 25), 9) >>> 0;
  const t = state[1] << 9;
  state[2] ^= state[0];
  state[3] ^= state[1];
  state[1] ^= state[2];
  state[0] ^= state[3];
  state[2] ^= t;
  state[3] = (state[3] << 11) | (state[3] >>> 21);
  return result;
}

function replaceMathRandom() {
  seedMathRandom(crypto.randomBytes(16));
  const random = () => ((nextWord() >>> 5) * 67108864 + (nextWord() >>> 6)) / 9007199254740992;
  Object.defineProperty(random, "name", { value: "random" });
  Object.defineProperty(Math, "random", {
    value: random,
    writable: true,
    enumerable: false,
    configurable: true,
  });
}

/** The add-on that reseeds OpenSSL, or null: beside this file, or in build/ of a checkout. */
function loadOpensslReseed() {
  for (const file of ["openssl-reseed.node", "../build/openssl-reseed.node"]) {
    const full = path.join(here, file);
    if (!fs.existsSync(full)) continue;
    try {
      return createRequire(import.meta.url)(full);
    } catch {
      // An interpreter without add-ons: covered as far as reseed() can.
    }
  }
  return null;
}

const opensslReseed = loadOpensslReseed();

/** Kernel randomness for callers of node:crypto when OpenSSL itself cannot be reseeded. */
function useKernelForCrypto() {
  const fd = fs.openSync("/dev/urandom", "r");
  const fill = (view, offset = 0, size = undefined) => {
    const bytes = ArrayBuffer.isView(view)
      ? new Uint8Array(view.buffer, view.byteOffset, view.byteLength)
      : new Uint8Array(view);
    const unit = view.BYTES_PER_ELEMENT ?? 1;
    const end = size === undefined ? bytes.length : (offset + size) * unit;
    for (let at = offset * unit; at < end; ) at += fs.readSync(fd, bytes, at, end - at, null);
    return view;
  };
  const original = crypto.randomUUID;
  crypto.randomFillSync = fill;
  crypto.randomBytes = (size, callback) => {
    const bytes = fill(Buffer.alloc(size));
    if (!callback) return bytes;
    process.nextTick(callback, null, bytes);
    return undefined;
  };
  crypto.randomUUID = (options) => {
    const bytes = fill(Buffer.alloc(16));
    original(options);
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    const hex = bytes.toString("hex");
    return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
  };
  syncBuiltinESMExports();
}

function reseed(hex) {
  const done = ["Math.random"];
  seedMathRandom(Buffer.from(hex, "hex"));
  if (opensslReseed?.()) {
    done.push("openssl");
  } else {
    useKernelForCrypto();
    done.push("crypto.randomBytes", "crypto.randomUUID");
  }
  for (let i = 0; i < UUID_DRAWS && crypto.randomUUID; i++) crypto.randomUUID();
  for (let i = 0; i < INT_DRAWS; i++) crypto.randomInt(2);
  return done;
}

function send(message) {
  let line = JSON.stringify(message);
  if (Buffer.byteLength(line) >= LINE_BYTES_MAX) {
    message.result_json = null;
    for (const key of ["result", "error", "traceback"]) {
      const text = message[key];
      if (text && text.length > TEXT_CHARS_MAX) {
        message[key] = `${text.slice(0, TEXT_CHARS_MAX)}... (cut, ${text.length} characters)`;
      }
    }
    line = JSON.stringify(message);
  }
  channel.write(`${line}\n`);
}

/** JSON of a value; "null" for undefined; null when JSON cannot hold it. */
function toJson(value) {
  if (value === undefined) return "null";
  if (typeof value === "number" && !Number.isFinite(value)) return null;
  try {
    return JSON.stringify(value) ?? null;
  } catch {
    return null;
  }
}

/**
 * Node's own read-eval-print loop, used only for its rewriting of top-level await: no public
 * interface offers that alone. Neither its input nor its output is connected to anything.
 */
const server = repl.start({
  prompt: "",
  input: new PassThrough(),
  output: new Writable({ write: (_chunk, _encoding, done) => done() }),
  terminal: false,
  useGlobal: true,
  useColors: false,
  breakEvalOnSigint: false,
});

/** Ends the running eval with what was thrown outside its call stack, or null between evals. */
let failRunning = null;

function lateError(error) {
  if (failRunning) failRunning(error);
  else process.stderr.write(`Uncaught ${util.inspect(error)}\n`);
}

// Where Node runs the loop in a domain, errors of awaiting code arrive there.
server._domain?.removeAllListeners("error");
server._domain?.on("error", lateError);

const dynamicImport = vm.constants?.USE_MAIN_CONTEXT_DEFAULT_LOADER ?? ((name) => import(name));

function compile(code) {
  const options = { filename: "<eval>", importModuleDynamically: dynamicImport };
  if (/^\s*\{/.test(code) && !/;\s*$/.test(code)) {
    try {
      return new vm.Script(`(${code.trim()})`, options);
    } catch {
      // A block after all.
    }
  }
  return new vm.Script(code, options);
}

/** The script, or null for code that only compiles with its top-level await rewritten. */
function compileOrAwait(code) {
  try {
    return compile(code);
  } catch (error) {
    if (/\bawait\b/.test(code)) return null;
    throw error;
  }
}

function errorReply(thrown) {
  const error = thrown instanceof repl.Recoverable ? thrown.err : thrown;
  const isError = util.types.isNativeError(error);
  let stack = isError && typeof error.stack === "string" ? error.stack : null;
  // The frames from here on are those of this file and of what it called.
  const ours =
    stack?.search(/\n {4}at [^\n]*(node:vm|node:repl|node:internal\/vm|runtime\/node\.mjs)/) ?? -1;
  if (stack && ours > 0) stack = stack.slice(0, ours);
  return {
    ok: false,
    result: null,
    result_json: null,
    error: isError ? `${error.name}: ${error.message}` : `Uncaught ${util.inspect(error)}`,
    traceback: stack,
  };
}

function valueReply(value) {
  const result = util.inspect(value);
  return { ok: true, result, result_json: toJson(value), error: null, traceback: null };
}

function awaited(code) {
  return new Promise((resolve, reject) => {
    failRunning = reject;
    server.eval(`${code}\n`, globalThis, "<eval>", (error, value) => {
      if (error) reject(error);
      else resolve(value);
    });
  });
}

async function evaluate(code) {
  try {
    const script = compileOrAwait(code);
    const value = script
      ? script.runInThisContext({ breakOnSigint: true, displayErrors: false })
      : await awaited(code);
    return valueReply(value);
  } catch (error) {
    return errorReply(error);
  } finally {
    failRunning = null;
  }
}

async function answer(request) {
  if (request.op === "eval") return evaluate(request.code);
  if (request.op !== "reseed") return { ok: false, error: "unknown op", reseeded: [] };
  try {
    return { ok: true, reseeded: reseed(request.seed) };
  } catch (error) {
    return { ok: false, error: String(error), reseeded: [] };
  }
}

/** `node:fs/promises` -> fs_promises: the global that an import becomes. */
function globalName(specifier) {
  return path
    .basename(specifier.replace(/^node:/, "").replaceAll("/", "_"))
    .replace(/[^\w$]/g, "_");
}

async function importAll(names) {
  const resolver = createRequire(path.join(process.cwd(), "index.js"));
  for (const name of names) {
    const optional = name.startsWith("?");
    const specifier = optional ? name.slice(1) : name;
    try {
      let found = specifier;
      if (!specifier.startsWith("node:")) {
        found = resolver.resolve(specifier);
        if (path.isAbsolute(found)) found = pathToFileURL(found).href;
      }
      const module = await import(found);
      globalThis[globalName(specifier)] = module.default ?? module;
    } catch (error) {
      if (!optional) throw error;
    }
  }
}

async function serve() {
  let rest = "";
  channel.setEncoding("utf8");
  for await (const chunk of channel) {
    rest += chunk;
    for (let end = rest.indexOf("\n"); end >= 0; end = rest.indexOf("\n")) {
      const request = JSON.parse(rest.slice(0, end));
      rest = rest.slice(end + 1);
      send({ id: request.id, ...(await answer(request)) });
    }
  }
  process.exit(0);
}

// For code that waits; a late one, for an eval that has ended, must not end the interpreter.
process.on("SIGINT", () => failRunning?.(new Error("interrupted")));
process.on("uncaughtException", lateError);
process.on("unhandledRejection", lateError);
replaceMathRandom();
try {
  await importAll(process.argv.slice(2));
  process.argv.length = 1;
  const how = opensslReseed ? "" : ", without the OpenSSL add-on";
  send({ ready: true, detail: `node ${process.version} (${process.execPath})${how}` });
  await serve();
} catch (error) {
  process.stderr.write(`${util.inspect(error)}\n`);
  send({ ready: false, error: String(error) });
  channel.end(() => process.exit(1));
}
