import type { FastifyRequest } from "fastify";

/** The path as it came, undecoded and without its query, which may hold secrets. */
export function pathOf(request: FastifyRequest): string {
  const url = request.originalUrl;
  const end = url.indexOf("?");
  return end === -1 ? url : url.slice(0, end);
}

/** Whether percent-decoding works; the router cannot route a path where it does not. */
export function isDecodable(url: string): boolean {
  try {
    decodeURIComponent(url);
    return true;
  } catch {
    return false;
  }
}
