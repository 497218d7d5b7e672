import { join } from "node:path";
import { run } from "@forkd/host/lib/exec.ts";

export interface CertificateFiles {
  readonly cert: string;
  readonly key: string;
}

/** A new key with a certificate of its own for 127.0.0.1, in `dir`, by openssl. */
export async function makeCertificate(dir: string, name: string): Promise<CertificateFiles> {
  const [cert, key] = [join(dir, `${name}.pem`), join(dir, `${name}-key.pem`)];
  await run([
    ...["openssl", "req", "-x509", "-nodes", "-days", "2", "-subj", `/CN=${name}`],
    ...["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"],
    ...["-addext", "subjectAltName=IP:127.0.0.1", "-out", cert, "-keyout", key],
  ]);
  return { cert, key };
}
