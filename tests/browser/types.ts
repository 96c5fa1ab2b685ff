// Uses of the helper from TypeScript. If this does not compile, the types are wrong. It is never run.
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

// RolloutLinkProvider accepts a function of this type.
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

// @ts-expect-error there is no such option
createTokenSource({ uri: "/rollout/token" });
// @ts-expect-error a promise, not a text
source.get().length;
