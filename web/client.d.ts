// The types of client.js: how a page gets Rollout tokens from the rollout-token service.
// The service's codes are described in docs/errors.md.

export interface TokenSourceOptions {
  /** The URL of the token route. Default: "/rollout/token", on the page's own origin. */
  url?: string | URL;
  /** As for fetch(). Default: "include", so that cookies are sent to another origin too. */
  credentials?: RequestCredentials;
  /**
   * Additional headers, or a function that is called before each request: for sessions in `Authorization`.
   * If the function fails, the request fails with the code `network`.
   */
  headers?: HeadersInit | (() => HeadersInit | Promise<HeadersInit>);
  /** Used in place of the global fetch. */
  fetch?: typeof fetch;
  /** Permanently stops requests and retries: calls that need another token fail with the code `aborted`. */
  signal?: AbortSignal;
  /** Called after each 401, once for each request: the user must sign in. */
  onSignedOut?: (error: RolloutTokenError) => void;
}

export interface TokenSource {
  /**
   * Returns a valid token: the current one, which is renewed early. Concurrent calls share one request.
   * For your own calls of Rollout's API.
   */
  get(): Promise<string>;
  /**
   * Returns a new token, or one that is at most half a second old: an answer, also a refusal, is shared for that
   * time, to limit the requests of a loop. For `<RolloutLinkProvider token={source.fresh}>`, which stores the token
   * until Rollout refuses it.
   */
  fresh(): Promise<string>;
  /** Discards the token: call it when the page signs a user in or out without a reload. */
  clear(): void;
}

/**
 * Creates a token source. Create one per page, outside of components. It sends no request before the first get() or
 * fresh(), and runs no timer. "Too many requests", "unavailable" and network failures are retried inside the call.
 */
export function createTokenSource(options?: TokenSourceOptions): TokenSource;

/** The service's codes, and codes for failures that only the browser can detect. */
export type TokenErrorCode =
  | "no_session"
  | "session_expired"
  | "session_invalid"
  | "origin_not_allowed"
  | "rate_limited"
  | "session_backend_unavailable"
  | "overloaded"
  | "draining"
  | "internal"
  /** No answer: no network, an answer that CORS forbids to read, or `headers` failed; see `cause`. */
  | "network"
  /** The answer was a redirect, usually to a login page of a proxy. */
  | "redirected"
  /** Status 200 without a token: another server answers at `url`. */
  | "bad_response"
  /** `signal` was aborted. */
  | "aborted"
  /** Also `http_502` and similar, if a proxy in front of the service answered. */
  | (string & {});

export class RolloutTokenError extends Error {
  constructor(
    code: TokenErrorCode,
    message: string,
    details?: { status?: number; requestId?: string; retryAfter?: number; cause?: unknown },
  );
  readonly name: "RolloutTokenError";
  readonly code: TokenErrorCode;
  /** Absent if there was no answer. */
  readonly status?: number;
  /** The same id is in the service's log. */
  readonly requestId?: string;
  /** Seconds to wait before the next attempt. */
  readonly retryAfter?: number;
}
