// The types of client.js: how a page gets Rollout tokens from the rollout-token service.
// The service's codes are described in docs/errors.md.

export interface TokenSourceOptions {
  /** The token route's URL. Default: next to client.js if the service serves that file, otherwise "/rollout/token". */
  url?: string | URL;
  /** The option `credentials` of fetch(). Default: "include", so that cookies are sent to another origin too. */
  credentials?: RequestCredentials;
  /**
   * Additional headers, such as `Authorization`, or a function that returns them and is called before each request.
   * If the function fails, the request fails with the code `network`.
   */
  headers?: HeadersInit | (() => HeadersInit | Promise<HeadersInit>);
  /** Used in place of the global fetch. */
  fetch?: typeof fetch;
  /** Permanently stops requests and retries: calls that need another token fail with the code `aborted`. */
  signal?: AbortSignal;
  /** Called once for each request that gets a 401, unless clear() was called meanwhile: the user must sign in. */
  onSignedOut?: (error: RolloutTokenError) => void;
}

export interface TokenSource {
  /**
   * Returns a valid token, for your own calls to Rollout's API. The token is renewed before it expires, and concurrent
   * calls share one request.
   */
  get(): Promise<string>;
  /**
   * Returns a new token, or one that is at most half a second old: calls within that time share an answer, even a
   * refusal, so that a caller in a loop sends few requests. An error with Retry-After is shared until that time has
   * passed, but for at most a minute. Use it as `<RolloutLinkProvider token={source.fresh}>`, which stores the token
   * until Rollout refuses it.
   */
  fresh(): Promise<string>;
  /** Discards the token: call it when the page signs a user in or out without a reload. */
  clear(): void;
}

/**
 * Creates a token source. Create one per page, outside of components. It sends no request before the first get() or
 * fresh(), and runs no timer in the background. Network failures, timeouts and the statuses 429, 502, 503 and 504 are
 * retried inside the call, which waits at most 30 s in all between its attempts.
 */
export function createTokenSource(options?: TokenSourceOptions): TokenSource;

/** The service's most frequent codes, and codes for failures that only the browser can detect. */
export type TokenErrorCode =
  | "no_session"
  | "session_expired"
  | "session_invalid"
  | "origin_not_allowed"
  | "rate_limited"
  | "session_backend_unavailable"
  | "overloaded"
  | "internal"
  /** No answer arrived in time, or it had no CORS headers, or `headers` failed; see `cause`. */
  | "network"
  /** The answer was a redirect, usually to a proxy's login page. */
  | "redirected"
  /** Status 200 without a token: another server answers at `url`. */
  | "bad_response"
  /** `signal` was aborted. */
  | "aborted"
  /** Another code of the service, or `http_502` and similar codes: a proxy in front of the service answered. */
  | (string & {});

export class RolloutTokenError extends Error {
  constructor(
    code: TokenErrorCode,
    message: string,
    details?: { status?: number; requestId?: string; retryAfter?: number; cause?: unknown },
  );
  readonly name: "RolloutTokenError";
  readonly code: TokenErrorCode;
  /** The HTTP status; 0 for a redirect in a browser, and absent for the codes `network` and `aborted`. */
  readonly status?: number;
  /** The request id, which is also in the service's log. */
  readonly requestId?: string;
  /** Seconds to wait before the next attempt. */
  readonly retryAfter?: number;
}
