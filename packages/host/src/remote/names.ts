/** An address as people may see it: a presigned one carries its permission in the query. */
export function nameOf(url: URL): string {
  return `${url.protocol}//${url.host}${url.pathname}`;
}
