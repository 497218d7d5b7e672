/** Checks what a daemon answers against the OpenAPI document that the same daemon serves. */
import assert from "node:assert/strict";
import { Ajv2020, type ValidateFunction } from "ajv/dist/2020.js";
import { z } from "zod";

type Json = { [key: string]: unknown };

const mediaSchema = z.object({ schema: z.record(z.string(), z.unknown()).optional() });
const answerSchema = z.object({ content: z.record(z.string(), mediaSchema).optional() });
const operationSchema = z.object({ responses: z.record(z.string(), answerSchema) });
const documentSchema = z.object({
  paths: z.record(z.string(), z.record(z.string(), operationSchema)),
  components: z.object({ schemas: z.record(z.string(), z.record(z.string(), z.unknown())) }),
});

type Document = z.infer<typeof documentSchema>;

/** One answer, as far as the document speaks of it. */
export interface SeenAnswer {
  readonly method: string;
  readonly path: string;
  readonly status: number;
  readonly contentType: string;
  readonly text: string;
}

const documentId = "openapi";

/**
 * An object in an answer may have no field that the document does not know: clients ignore such a
 * field, but nobody would ever learn of it.
 */
function closed(schema: unknown): unknown {
  if (Array.isArray(schema)) return schema.map(closed);
  if (typeof schema !== "object" || schema === null) return schema;
  const parts = Object.entries(schema).map(([name, part]) => [name, closed(part)]);
  const copy: Json = Object.fromEntries(parts);
  const isPlain = copy["properties"] !== undefined && copy["additionalProperties"] === undefined;
  return isPlain ? { ...copy, additionalProperties: false } : copy;
}

/** The answers that a document allows. */
export class Contract {
  readonly #document: Document;
  readonly #ajv = new Ajv2020({
    strict: false,
    allErrors: true,
    // It knows no format, and says so for each.
    validateFormats: false,
  });
  readonly #known = new Map<string, ValidateFunction>();
  /** How many answers have been checked. */
  checked = 0;

  constructor(document: unknown) {
    this.#document = documentSchema.parse(document);
    const { schemas } = this.#document.components;
    this.#ajv.addSchema({ $id: documentId, components: { schemas: closed(schemas) } });
  }

  /** Fails the test when the answer is not one that the document allows. */
  check(answer: SeenAnswer): void {
    const { method, path, status, text } = answer;
    const what = `${method} ${path} answered ${status}`;
    const template = this.#templateOf(path);
    const operation = this.#document.paths[template ?? ""]?.[method.toLowerCase()];
    this.checked += 1;
    if (operation === undefined) {
      // Neither an unknown path has an operation, nor a known one with another method.
      assert.ok(status >= 400, `${what}: not in the document`);
      return;
    }
    const allowed = operation.responses[String(status)];
    assert.ok(allowed, `${what}: the document has only ${Object.keys(operation.responses)}`);
    const [type, media] = Object.entries(allowed.content ?? {})[0] ?? [];
    if (media === undefined) {
      assert.equal(text, "", what);
      return;
    }
    assert.ok(answer.contentType.startsWith(String(type)), `${what} as ${answer.contentType}`);
    if (type !== "application/json" || media.schema === undefined) return;
    const validate = this.#validator(`${method} ${template} ${status}`, media.schema);
    const reason = validate(JSON.parse(text)) ? "" : this.#ajv.errorsText(validate.errors);
    assert.equal(reason, "", `${what} with ${text.slice(0, 500)}: ${reason}`);
  }

  #templateOf(path: string): string | undefined {
    const bare = path.split("?", 1)[0] ?? "";
    return Object.keys(this.#document.paths).find((template) =>
      new RegExp(`^${template.replaceAll(".", "\\.").replaceAll(/\{\w+\}/g, "[^/]+")}$`).test(bare),
    );
  }

  #validator(key: string, schema: Json): ValidateFunction {
    const known = this.#known.get(key);
    if (known !== undefined) return known;
    const text = JSON.stringify(closed(schema)).replaceAll('"#/', `"${documentId}#/`);
    const made = this.#ajv.compile(JSON.parse(text));
    this.#known.set(key, made);
    return made;
  }
}

const streamTypes: readonly string[] = ["application/octet-stream", "text/event-stream"];

/** How the SDK reaches a daemon, with every answer of it checked. */
export function checkedClient({ url, token }: { readonly url: string; readonly token: string }) {
  return { baseUrl: url, token, fetch: checkedFetch(url, token) };
}

/**
 * A fetch that checks every answer of the daemon at `url` before it is read. The document is asked
 * for once, with the first request.
 */
export function checkedFetch(url: string, token: string): typeof fetch {
  let contract: Promise<Contract> | undefined;
  const load = async (): Promise<Contract> => {
    const headers = { authorization: `Bearer ${token}` };
    const document = await fetch(`${url}/openapi.json`, { headers });
    return new Contract(await document.json());
  };
  return async (input, init = {}) => {
    const response = await fetch(input, init);
    const contentType = response.headers.get("content-type") ?? "";
    const isStream = streamTypes.some((type) => contentType.startsWith(type));
    // A stream is its reader's: it may be endless, and two readers would wait for each other.
    const text = isStream ? "" : await response.clone().text();
    contract ??= load();
    const { pathname, search } = new URL(String(input instanceof Request ? input.url : input));
    (await contract).check({
      method: init.method ?? "GET",
      path: `${pathname}${search}`,
      status: response.status,
      contentType,
      text,
    });
    return response;
  };
}
