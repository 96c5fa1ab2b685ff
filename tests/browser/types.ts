// Uses of the browser helper in TypeScript. This file must compile with client.d.ts; it is never run.
import { createTokenSource, RolloutTokenError, type TokenErrorCode, type TokenSource } from "rollout-token/client";

createTokenSource();
createTokenSource({ url: "/rollout/token", headers: { "X-CSRF-Token": "x" } });
const source: TokenSource = createTokenSource({
  url: new URL("https://app.example/rollout/token"),
  credentials: "include",
  headers: async () => ({ Authorization: "Bearer x" }),
  fetch,
  signal: new AbortController().signal,
  onSignedOut: ({ code, status, requestId, retryAfter }) => {
    const known: TokenErrorCode = code;
    console.log(known, status?.toFixed(), requestId?.length, retryAfter?.toFixed());
  },
});

// The prop `token` of RolloutLinkProvider has this type.
export const token: string | (() => Promise<string> | string) = source.fresh;

export async function use(): Promise<string | undefined> {
  try {
    return await source.get();
  } catch (error) {
    if (error instanceof RolloutTokenError && error.code === "no_session") return undefined;
    throw new RolloutTokenError("network", "for a test", { cause: error });
  } finally {
    source.clear();
  }
}

// @ts-expect-error the option is `url`, not `uri`
createTokenSource({ uri: "/rollout/token" });
// @ts-expect-error get() returns a promise, not a string
source.get().length;
