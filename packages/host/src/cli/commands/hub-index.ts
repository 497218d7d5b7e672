import { resolve } from "node:path";
import { exitCodes } from "../exit.ts";
import { usage } from "../flags.ts";
import { defineVerb } from "../verb.ts";

export const hubIndexVerb = defineVerb({
  describe: (command) =>
    command
      .name("index")
      .description("write the registry.json of a directory of packs, to be served with them")
      .argument("<dir>", "has OWNER/NAME/VERSION.forkd-snapshot.tar.zst")
      .requiredOption("--base-url <url>", "where the directory will be served")
      .addHelpText(
        "after",
        "\nEach package's highest version is its latest. Serve the directory with any web server.",
      ),
  parse: ({ flags, args, rest }) => {
    const [dir, ...more] = [...args, ...rest];
    if (dir === undefined || more.length > 0) throw usage("name one directory of packs");
    const text = flags.required("baseUrl");
    const url = URL.parse(text);
    if (url !== null && (url.protocol === "http:" || url.protocol === "https:")) {
      return { dir: resolve(dir), baseUrl: url };
    }
    throw usage(
      `--base-url ${JSON.stringify(text.slice(0, 200))} is not an http or https address`,
      "for example: --base-url https://HOST/packs",
    );
  },
  run: async ({ output, signal }, { dir, baseUrl }) => {
    const { publishHub } = await import("../../fork/publish-hub.ts");
    const onNotice = (text: string): void => output.progress(text);
    const { path, index } = await publishHub({ dir, baseUrl, onNotice, signal });
    const packages = Object.keys(index.packages).length;
    if (output.json) output.data({ path, packages: index.packages });
    else {
      output.success(`indexed ${packages} ${packages === 1 ? "package" : "packages"}`);
      output.line(path);
    }
    return exitCodes.ok;
  },
});
