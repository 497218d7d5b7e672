import { readFile } from "node:fs/promises";
import { createSecureContext } from "node:tls";
import { ForkdError } from "@forkd/api";
import type { Logger } from "../lib/log.ts";
import type { DaemonConfig } from "./config.ts";
import { loadToken, readableByOthers } from "./token.ts";

/** PEM texts that belong together. */
export interface TlsPem {
  readonly cert: string;
  readonly key: string;
}

/** What a running daemon reads again when it is told to. */
export interface Credentials {
  readonly token: string | null;
  readonly tls: TlsPem | null;
}

type Files = Pick<DaemonConfig, "tokenFile" | "tls">;

/** Throws config_invalid for files that cannot be read or that protect nothing. */
export async function loadCredentials(
  { tokenFile, tls }: Files,
  log: Logger,
): Promise<Credentials> {
  const token = tokenFile === null ? null : await loadToken(tokenFile);
  for (const path of [tokenFile, tls?.keyFile ?? null]) {
    if (path !== null && (await readableByOthers(path))) {
      log.warn("a secret can be read by other users", { path, fix: `chmod 600 ${path}` });
    }
  }
  return { token, tls: tls === null ? null : await loadTls(tls) };
}

async function loadTls(files: NonNullable<DaemonConfig["tls"]>): Promise<TlsPem> {
  const pem = { cert: await readPem(files.certFile), key: await readPem(files.keyFile) };
  try {
    // Also compares the key with the certificate: two files are never replaced in one moment.
    createSecureContext(pem);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    const message = `${files.certFile} and ${files.keyFile} are no certificate and key: ${reason}`;
    throw new ForkdError("config_invalid", message, {
      hint: "both are PEM, the certificate first in its chain; write the pair, then try again",
      cause: error,
    });
  }
  return pem;
}

async function readPem(path: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new ForkdError("config_invalid", `cannot read the TLS file: ${reason}`, { cause: error });
  }
}
