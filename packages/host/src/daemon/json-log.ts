import type { Logger } from "../lib/log.ts";

type Level = "info" | "warn" | "error";

const causesMax = 5;

/** A logger that writes each event as one line of JSON: time, level, msg, then the fields. */
export function jsonLogger(write: (line: string) => void, base: object = {}): Logger {
  const emit = (level: Level, msg: string, fields: object = {}): void => {
    const event = { time: new Date().toISOString(), level, msg, ...base, ...fields };
    write(`${JSON.stringify(event, describeErrors)}\n`);
  };
  return {
    info: (msg, fields) => emit("info", msg, fields),
    warn: (msg, fields) => emit("warn", msg, fields),
    error: (msg, fields) => emit("error", msg, fields),
    child: (fields) => jsonLogger(write, { ...base, ...fields }),
  };
}

/** An error has no enumerable fields: JSON.stringify alone would write `{}`. */
function describeErrors(_key: string, value: unknown): unknown {
  if (value instanceof Error) return describeError(value);
  return typeof value === "bigint" ? value.toString() : value;
}

function describeError(error: Error): object {
  const chain: string[] = [];
  let cause: unknown = error.cause;
  while (cause !== undefined && chain.length < causesMax) {
    chain.push(cause instanceof Error ? (cause.stack ?? cause.message) : String(cause));
    cause = cause instanceof Error ? cause.cause : undefined;
  }
  return { message: error.message, stack: error.stack, causes: chain };
}
