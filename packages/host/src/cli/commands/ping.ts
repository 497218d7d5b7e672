import { openClient } from "../daemon.ts";
import { exitCodes } from "../exit.ts";
import { addGuestOptions, openTcpAgent, parseGuest } from "../guest.ts";
import { defineVerb } from "../verb.ts";

const pingTimeoutMs = 10_000;

export const pingVerb = defineVerb({
  describe: (command) =>
    addGuestOptions(
      command
        .name("ping")
        .description("ask a guest's agent to answer, and print its answer as JSON")
        .argument("[id]", "a sandbox of the daemon"),
    ),
  parse: parseGuest,
  run: async (context, guest) => {
    if (guest.by === "tcp") {
      context.output.data(await (await openTcpAgent(context, guest)).ping());
      return exitCodes.ok;
    }
    const client = await openClient(context.settings);
    const { signal } = context;
    const params = { id: guest.id };
    context.output.data(await client.pingSandbox({ params, timeoutMs: pingTimeoutMs, signal }));
    return exitCodes.ok;
  },
});
