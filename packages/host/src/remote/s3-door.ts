import { Readable } from "node:stream";
import type { S3Client, S3ClientConfig } from "@aws-sdk/client-s3";
import { type Env, keptAgents } from "./proxy.ts";
import type { ReadFrom, RemoteFacts, RemoteRead } from "./remote.ts";
import { nothingMore } from "./remote.ts";
import { type RetryOptions, retrying } from "./retry.ts";
import { hashName, type S3Address } from "./s3-address.ts";
import { s3Failure, s3Status } from "./s3-failure.ts";
import { UnfinishedUpload } from "./unfinished-upload.ts";

/** AWS's client, loaded when an s3:// address is used: it takes longer than the rest of forkd. */
type Sdk = typeof import("@aws-sdk/client-s3");

const connectMaxMs = 30_000;
const idleMaxMs = 60_000;
/** For stores that are named by an endpoint and have no regions; it only goes into signatures. */
const regionDefault = "us-east-1";

export interface S3Options {
  readonly retry: RetryOptions;
  /** Says which endpoint is meant; credentials the client looks up by itself. */
  readonly env: Env;
  /** Where uploads that stopped are remembered; absent: what stops is given up. */
  readonly uploadsDir?: string;
}

/** One object's client: every request to it has the same bounds and fails in the same words. */
export class S3Door {
  readonly name: string;
  readonly sdk: Sdk;
  readonly client: S3Client;
  readonly target: { readonly Bucket: string; readonly Key: string };
  /** Null where nothing is remembered. */
  readonly unfinished: UnfinishedUpload | null;
  readonly #retry: RetryOptions;

  constructor(sdk: Sdk, { bucket, key }: S3Address, { env, retry, uploadsDir }: S3Options) {
    this.name = `s3://${bucket}/${key}`;
    // The same bucket of another store is another place.
    const place = `${endpointOf(env) ?? "amazon"} ${this.name}`;
    this.unfinished = uploadsDir === undefined ? null : new UnfinishedUpload(uploadsDir, place);
    this.sdk = sdk;
    this.client = new sdk.S3Client(clientConfig(env));
    this.target = { Bucket: bucket, Key: key };
    this.#retry = retry;
  }

  stat(signal: AbortSignal): Promise<RemoteFacts> {
    const command = new this.sdk.HeadObjectCommand(this.target);
    return this.repeat(signal, async () => {
      return factsOf(await this.client.send(command, { abortSignal: signal }), 0);
    });
  }

  read(from: ReadFrom, signal: AbortSignal): Promise<RemoteRead> {
    return this.#once(signal, async () => {
      try {
        return await this.#get(from, signal);
      } catch (error) {
        // Another object by now, or one that ends where the read was to begin.
        const status = s3Status(error);
        if (status !== 412 && status !== 416) throw error;
        const facts = await this.stat(signal);
        const isWhole = facts.sizeBytes === from.offset && facts.version === from.version;
        if (isWhole) return { ...nothingMore(from), sha256: facts.sha256 };
        return await this.#get({ offset: 0, version: null }, signal);
      }
    });
  }

  /** For requests that may be sent again. */
  repeat<T>(signal: AbortSignal, work: () => Promise<T>): Promise<T> {
    return retrying(this.#retry, signal, () => this.#once(signal, work));
  }

  async #get({ offset, version }: ReadFrom, signal: AbortSignal): Promise<RemoteRead> {
    const command = new this.sdk.GetObjectCommand({
      ...this.target,
      ...(offset > 0 && { Range: `bytes=${offset}-` }),
      ...(offset > 0 && version !== null && { IfMatch: version }),
    });
    const answer = await this.client.send(command, { abortSignal: signal });
    if (!(answer.Body instanceof Readable)) throw new Error("it answered without a body");
    const begin = answer.ContentRange?.startsWith(`bytes ${offset}-`) ? offset : 0;
    return { ...factsOf(answer, begin), offset: begin, body: answer.Body };
  }

  async #once<T>(signal: AbortSignal, work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      signal.throwIfAborted();
      throw s3Failure(error, this.name);
    }
  }
}

interface S3Facts {
  readonly ContentLength?: number | undefined;
  readonly ETag?: string | undefined;
  readonly Metadata?: Readonly<Record<string, string>> | undefined;
}

function factsOf({ ContentLength, ETag, Metadata }: S3Facts, offset: number): RemoteFacts {
  const sha256 = Metadata?.[hashName];
  return {
    sizeBytes: ContentLength === undefined ? null : offset + ContentLength,
    version: ETag ?? null,
    sha256: sha256 !== undefined && /^[0-9a-f]{64}$/.test(sha256) ? sha256 : null,
  };
}

function endpointOf(env: Env): string | undefined {
  return env["AWS_ENDPOINT_URL_S3"] || env["AWS_ENDPOINT_URL"] || undefined;
}

function clientConfig(env: Env): S3ClientConfig {
  const hasEndpoint = endpointOf(env) !== undefined;
  const region = env["AWS_REGION"] || env["AWS_DEFAULT_REGION"];
  return {
    // One place counts failures and waits between them: retry.ts.
    maxAttempts: 1,
    // Content-MD5 goes with every part; the newer checksums are unknown to many other stores.
    requestChecksumCalculation: "WHEN_REQUIRED",
    responseChecksumValidation: "WHEN_REQUIRED",
    requestHandler: {
      connectionTimeout: connectMaxMs,
      socketTimeout: idleMaxMs,
      ...keptAgents(env),
    },
    // A bucket is no host name of MinIO's, or of a test's.
    ...(hasEndpoint && { forcePathStyle: true }),
    ...(region ? { region } : hasEndpoint && { region: regionDefault }),
  };
}
