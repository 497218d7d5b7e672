import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";

/** A node of the description: a scalar's text, a list, or a map. */
type Node = string | Node[] | { [key: string]: Node };
type Dict = { [key: string]: Node };

const repoRoot = join(import.meta.dirname, "../..");

/**
 * Upstream's description of Firecracker's API, which is no part of this repository:
 * FORKD_FIRECRACKER_SPEC, else where it lies beside a checkout. Undefined when it is not there.
 */
export function findSpec(): string | undefined {
  const given = process.env["FORKD_FIRECRACKER_SPEC"];
  const beside = join(repoRoot, "../shared/spec/firecracker-v1.16.1.yaml");
  return [given, beside].find((path) => path !== undefined && path !== "" && existsSync(path));
}

interface Line {
  readonly indent: number;
  readonly text: string;
}

/** The part of YAML that the description uses. What is not a key or an item is text, and dropped. */
export function parseYaml(text: string): Dict {
  const lines = text
    .split("\n")
    .filter((line) => line.trim() !== "" && !line.trim().startsWith("#"))
    .map((line) => ({ indent: line.length - line.trimStart().length, text: line.trim() }));
  const cursor = { at: 0 };
  return parseMap(lines, cursor, 0);
}

const keyPattern = /^"?([\w$/{}.-]+)"?:(?: (.*))?$/;

function parseMap(lines: readonly Line[], cursor: { at: number }, indent: number): Dict {
  const map: Dict = {};
  for (let line = lines[cursor.at]; line !== undefined; line = lines[cursor.at]) {
    if (line.indent < indent || line.text.startsWith("- ")) break;
    cursor.at += 1;
    const [, key, rest] = keyPattern.exec(line.text) ?? [];
    if (line.indent > indent || key === undefined) continue;
    map[key] = parseValue(lines, cursor, { indent, rest: rest ?? "" });
  }
  return map;
}

function parseValue(
  lines: readonly Line[],
  cursor: { at: number },
  { indent, rest }: { readonly indent: number; readonly rest: string },
): Node {
  if (rest !== "") return parseScalar(rest);
  const next = lines[cursor.at];
  if (next === undefined) return "";
  if (next.text.startsWith("- ") && next.indent >= indent) {
    return parseList(lines, cursor, next.indent);
  }
  return next.indent > indent ? parseMap(lines, cursor, next.indent) : "";
}

function parseList(lines: readonly Line[], cursor: { at: number }, indent: number): Node[] {
  const items: Node[] = [];
  for (let line = lines[cursor.at]; line !== undefined; line = lines[cursor.at]) {
    if (line.indent !== indent || !line.text.startsWith("- ")) break;
    const text = line.text.slice(2);
    cursor.at += 1;
    const [, key, rest] = keyPattern.exec(text) ?? [];
    if (key === undefined) items.push(parseScalar(text));
    else {
      const first = parseValue(lines, cursor, { indent: indent + 2, rest: rest ?? "" });
      items.push({ [key]: first, ...parseMap(lines, cursor, indent + 2) });
    }
  }
  return items;
}

function parseScalar(text: string): Node {
  const list = /^\[(.*)\]$/.exec(text)?.[1];
  const unquote = (word: string): string => word.trim().replace(/^"(.*)"$/, "$1");
  return list === undefined ? unquote(text) : list.split(",").map(unquote);
}

const asDict = (node: Node | undefined): Dict =>
  typeof node === "object" && !Array.isArray(node) ? node : {};
const asList = (node: Node | undefined): string[] =>
  Array.isArray(node) ? node.map((item) => String(item)) : [];

/** One kind of value, as the description has it. */
export class Definition {
  readonly #spec: Swagger;
  readonly #node: Dict;

  constructor(spec: Swagger, node: Dict) {
    this.#spec = spec;
    const ref = node["$ref"];
    this.#node = typeof ref === "string" ? spec.definition(ref) : node;
  }

  get required(): readonly string[] {
    return asList(this.#node["required"]);
  }

  get values(): readonly string[] {
    return asList(this.#node["enum"]);
  }

  get properties(): ReadonlyMap<string, Definition> {
    const entries = Object.entries(asDict(this.#node["properties"]));
    return new Map(entries.map(([name, node]) => [name, new Definition(this.#spec, asDict(node))]));
  }

  /** What is wrong with a value, a sentence each; none when it is as described. */
  problems(value: unknown, path = ""): string[] {
    const type = this.#node["type"];
    if (type === "string") return this.#problemsOfText(value, path);
    if (type === "boolean") return typeof value === "boolean" ? [] : [`${path} is no boolean`];
    if (type === "integer") return this.#problemsOfNumber(value, path);
    if (type === "array") return this.#problemsOfList(value, path);
    return this.#problemsOfObject(value, path);
  }

  #problemsOfText(value: unknown, path: string): string[] {
    if (typeof value !== "string") return [`${path} is no string`];
    const known = this.values.length === 0 || this.values.includes(value);
    return known ? [] : [`${path} is ${value}, not one of ${this.values.join(", ")}`];
  }

  #problemsOfNumber(value: unknown, path: string): string[] {
    if (!Number.isInteger(value)) return [`${path} is no integer`];
    const min = Number(this.#node["minimum"] ?? Number.NEGATIVE_INFINITY);
    const max = Number(this.#node["maximum"] ?? Number.POSITIVE_INFINITY);
    return Number(value) >= min && Number(value) <= max ? [] : [`${path} is out of range`];
  }

  #problemsOfList(value: unknown, path: string): string[] {
    if (!Array.isArray(value)) return [`${path} is no list`];
    const items = new Definition(this.#spec, asDict(this.#node["items"]));
    return value.flatMap((item, index) => items.problems(item, `${path}[${index}]`));
  }

  #problemsOfObject(value: unknown, path: string): string[] {
    if (typeof value !== "object" || value === null) return [`${path} is no object`];
    const members = new Map<string, unknown>(Object.entries(value));
    const { properties } = this;
    const missing = this.required.filter((name) => !members.has(name));
    const own = [...members].flatMap(([name, member]) => {
      const known = properties.get(name);
      return known?.problems(member, `${path}.${name}`) ?? [`${path}.${name} is not described`];
    });
    return [...missing.map((name) => `${path}.${name} is missing`), ...own];
  }
}

/** Upstream's description. */
export class Swagger {
  readonly #root: Dict;

  constructor(path: string) {
    this.#root = parseYaml(readFileSync(path, "utf8"));
  }

  /** Undefined when there is no such request; null when it has no body. */
  body(method: string, path: string): Definition | null | undefined {
    const operation = asDict(this.#root["paths"])[path];
    const described = asDict(operation)[method.toLowerCase()];
    if (described === undefined) return undefined;
    const parameters = asDict(described)["parameters"];
    const bodies = (Array.isArray(parameters) ? parameters : []).map(asDict);
    const body = bodies.find((parameter) => parameter["in"] === "body");
    return body === undefined ? null : new Definition(this, asDict(body["schema"]));
  }

  /** What is wrong with a request that was made. */
  problems(request: { method: string; path: string; body?: unknown }): string[] {
    const what = `${request.method} ${request.path}`;
    const pattern = Object.keys(asDict(this.#root["paths"])).find((path) => {
      return new RegExp(`^${path.replace(/\{\w+\}/g, "[^/]+")}$`).test(request.path);
    });
    const body = pattern === undefined ? undefined : this.body(request.method, pattern);
    if (body === undefined) return [`${what} is not described`];
    if (body === null) return request.body === undefined ? [] : [`${what} has no body`];
    return body.problems(request.body, what);
  }

  definition(ref: string): Dict {
    const name = ref.replace("#/definitions/", "");
    return asDict(asDict(this.#root["definitions"])[name]);
  }
}
