import { ForkdError } from "@forkd/api";
import type { ImageConfig } from "../store/rootfs.ts";

const variablesMax = 1024;
const textBytesMax = 128 * 1024;
const wordsMax = 1024;

/** What a root directory without a configuration of its own gets. */
export const plainConfig: ImageConfig = {
  env: { PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" },
  user: "",
  workdir: "",
  cmd: [],
  entrypoint: [],
};

/**
 * The part of an OCI image configuration that says how commands run (OCI image-spec, config.md).
 * Throws image_invalid for one that is malformed or beyond every reasonable size.
 */
export function parseImageConfig(json: string): ImageConfig {
  const root = parseObject(json);
  const config = isObject(root["config"]) ? root["config"] : {};
  const env = Object.fromEntries(words(config["Env"], variablesMax, "Env").map(splitVariable));
  return {
    env: Object.keys(env).length === 0 ? plainConfig.env : env,
    user: text(config["User"], "User"),
    workdir: workdir(text(config["WorkingDir"], "WorkingDir")),
    cmd: words(config["Cmd"], wordsMax, "Cmd"),
    entrypoint: words(config["Entrypoint"], wordsMax, "Entrypoint"),
  };
}

function parseObject(json: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(json);
    if (isObject(value)) return value;
  } catch {
    // Falls through to the one error below.
  }
  throw invalid("is no JSON object");
}

function splitVariable(word: string): [string, string] {
  const at = word.indexOf("=");
  if (at === 0 || !/^[^\0=]+/.test(word)) throw invalid("has a malformed Env");
  return at < 0 ? [word, ""] : [word.slice(0, at), word.slice(at + 1)];
}

function workdir(path: string): string {
  if (path === "" || path.startsWith("/")) return path;
  return `/${path}`;
}

function words(value: unknown, countMax: number, name: string): string[] {
  if (value === undefined || value === null) return [];
  if (!Array.isArray(value) || value.length > countMax) throw invalid(`has a malformed ${name}`);
  return value.map((word: unknown) => text(word ?? 0, name));
}

function text(value: unknown, name: string): string {
  if (value === undefined || value === null) return "";
  if (typeof value === "string" && value.length <= textBytesMax && !value.includes("\0")) {
    return value;
  }
  throw invalid(`has a malformed ${name}`);
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function invalid(why: string): ForkdError {
  return new ForkdError("image_invalid", `the image's configuration ${why}`);
}
