import { usage } from "./flags.ts";

/** What docker's users have in their fingers. */
export const detachKeysDefault = "ctrl-p,ctrl-q";
const keysMax = 8;

/** `ctrl-p,ctrl-q` or `ctrl-],x` as bytes; empty for none. Throws bad_request. */
export function parseDetachKeys(text: string): Uint8Array {
  if (text === "") return new Uint8Array(0);
  const keys = text.split(",").map(parseKey);
  if (keys.length <= keysMax) return Uint8Array.from(keys);
  throw usage(`--detach-keys takes at most ${keysMax} keys`);
}

function parseKey(word: string): number {
  const control = /^ctrl-([a-z@[\\\]^_])$/.exec(word)?.[1];
  // The terminal's own way to make a control character of a letter.
  if (control !== undefined) return control.toUpperCase().charCodeAt(0) & 0x1f;
  if (/^[!-~]$/.test(word)) return word.charCodeAt(0);
  throw usage(
    `${JSON.stringify(word.slice(0, 40))} is not a key`,
    `name letters, or ctrl- and a letter, for example: --detach-keys ${detachKeysDefault}`,
  );
}

/** Looks for the keys in what is typed; keys that may be the first of them are held back. */
export class DetachKeys {
  readonly #keys: Uint8Array;
  #matched = 0;

  constructor(keys: Uint8Array) {
    this.#keys = keys;
  }

  /** What goes to the guest, and whether the keys are complete; what follows them is dropped. */
  take(typed: Uint8Array): { readonly bytes: Uint8Array; readonly isDetach: boolean } {
    const bytes: number[] = [];
    for (const byte of typed) {
      if (byte !== this.#keys[this.#matched]) {
        bytes.push(...this.#keys.subarray(0, this.#matched));
        this.#matched = 0;
      }
      if (byte !== this.#keys[this.#matched]) {
        bytes.push(byte);
        continue;
      }
      this.#matched += 1;
      if (this.#matched === this.#keys.length) {
        this.#matched = 0;
        return { bytes: Uint8Array.from(bytes), isDetach: true };
      }
    }
    return { bytes: Uint8Array.from(bytes), isDetach: false };
  }
}
