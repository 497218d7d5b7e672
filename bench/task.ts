/** The work that every contender does, and the only answer that counts. */
export const warmImports: readonly string[] = ["numpy"];
export const evalCode = "numpy.zeros(5).tolist()";
export const expectedJson = "[0,0,0,0,0]";

/** The same work for an interpreter that starts cold. */
export const coldArgv: readonly string[] = [
  "python3",
  "-c",
  "import numpy; print(numpy.zeros(5).tolist())",
];

/** Whether a text is the expected list, however its numbers are written. */
export function isRightAnswer(text: string): boolean {
  try {
    const value: unknown = JSON.parse(text);
    return JSON.stringify(value) === expectedJson;
  } catch {
    return false;
  }
}
