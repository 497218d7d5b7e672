import { usage } from "./flags.ts";

const openQuotes = new Set(["'", '"']);

/**
 * Splits a text at white space, honouring '...' and "...": no escapes, no expansion. Throws
 * bad_request for a quote that is never closed.
 */
export function splitWords(text: string): string[] {
  const words: string[] = [];
  let word: string | undefined;
  let quote: string | undefined;
  for (const char of text) {
    if (char === quote) quote = undefined;
    else if (quote !== undefined) word += char;
    else if (openQuotes.has(char)) {
      quote = char;
      word ??= "";
    } else if (/\s/.test(char)) {
      if (word !== undefined) words.push(word);
      word = undefined;
    } else word = (word ?? "") + char;
  }
  if (quote !== undefined) throw usage(`a ${quote} in the command is never closed`);
  return word === undefined ? words : [...words, word];
}
