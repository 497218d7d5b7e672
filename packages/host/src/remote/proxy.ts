import { Agent as HttpAgent } from "node:http";
import { Agent as HttpsAgent } from "node:https";
import { ForkdError } from "@forkd/api";

/** The environment of whoever asked. */
export type Env = Readonly<Record<string, string | undefined>>;

/** The words for proxies that curl and most programs know; Node reads them for its agents. */
const proxyWords = ["HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"] as const;

type ProxyEnv = Partial<Record<(typeof proxyWords)[number], string>>;

/** Throws bad_request for a proxy that is no http or https address. */
function proxyEnvOf(env: Env): ProxyEnv {
  const words: ProxyEnv = {};
  for (const word of proxyWords) {
    // As curl: the small letters count first.
    const value = env[word.toLowerCase()] || env[word];
    if (!value) continue;
    if (word !== "NO_PROXY") requireProxy(word, value);
    words[word] = word === "NO_PROXY" ? withHostsBelow(value) : value;
  }
  return words;
}

/** As curl: a domain excepts the hosts below it; Node wants a dot before it for that. */
function withHostsBelow(list: string): string {
  const names = list
    .split(",")
    .map((name) => name.trim())
    .filter((name) => name !== "");
  return names.flatMap((name) => (/^[*.]/.test(name) ? [name] : [name, `.${name}`])).join(",");
}

/** Its text is not told: it may have a password in it. */
function requireProxy(word: string, value: string): void {
  const protocol = URL.parse(value)?.protocol;
  if (protocol === "http:" || protocol === "https:") return;
  throw new ForkdError("bad_request", `${word} is not an http or https address`, {
    hint: `write ${word}=http://HOST:PORT, or unset it`,
  });
}

/** Whether a name to connect to is that of a proxy. Throws bad_request. */
export function isProxyHost(name: string, env: Env): boolean {
  const { HTTP_PROXY, HTTPS_PROXY } = proxyEnvOf(env);
  return [HTTP_PROXY, HTTPS_PROXY].some((text) => URL.parse(text ?? "")?.hostname === name);
}

/** What makes one connection for one request, by a proxy where the environment names one. */
export function oneCallAgent(url: URL, env: Env): HttpAgent | HttpsAgent {
  // A connection of its own: one that was idle may be half gone, and then nobody knows why.
  const options = { keepAlive: false, proxyEnv: proxyEnvOf(env) };
  return url.protocol === "https:" ? new HttpsAgent(options) : new HttpAgent(options);
}

/** The same for a client that does many requests to one place. */
export function keptAgents(env: Env): { httpAgent: HttpAgent; httpsAgent: HttpsAgent } {
  const options = { keepAlive: true, maxSockets: 16, proxyEnv: proxyEnvOf(env) };
  return { httpAgent: new HttpAgent(options), httpsAgent: new HttpsAgent(options) };
}
