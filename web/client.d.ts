// The types of client.js: how a page gets Rollout tokens from the rollout-token service.
// What the codes of the service mean is in its README.

export interface TokenSourceOptions {
  /** Where the service answers. Default: "/rollout/token", on the page's own origin. */
  url?: string | URL;
  /** As for fetch(). Default: "include", so that cookies go to another origin too. */
  credentials?: RequestCredentials;
  /**
   * More headers, or a function that is asked before each request: for sessions in `Authorization`.
   * If it fails, the request counts as one that nothing answered.
   */
  headers?: HeadersInit | (() => HeadersInit | Promise<HeadersInit>);
  /** Used in place of the global fetch. */
  fetch?: typeof fetch;
  /** Ends all requests and waiting, for good: calls that would need another token fail with the code `aborted`. */
  signal?: AbortSignal;
  /** Called at each answer 401, once a request: the user has to sign in. */
  onSignedOut?: (error: RolloutTokenError) => void;
}

export interface TokenSource {
  /**
   * A token with life left: the last one, renewed early. All who ask at the same time share one request.
   * For your own calls of Rollout's API.
   */
  get(): Promise<string>;
  /**
   * A token straight from the service, with its whole life before it (half a second less at most: an answer, also a
   * refusal, is shared for that long, so that no loop makes a storm). For
   * `<RolloutLinkProvider token={source.fresh}>`, which keeps what it gets until Rollout refuses it.
   */
  fresh(): Promise<string>;
  /** Forgets the token: call it when the page signs a user in or out without a reload. */
  clear(): void;
}

/**
 * Nothing is asked before the first get() or fresh(), and no timer runs. Make one for the page, outside of
 * components. "Too many requests", "unavailable" and failures of the network are retried inside the call.
 */
export function createTokenSource(options?: TokenSourceOptions): TokenSource;

/** The service's codes, and what only the browser can tell. */
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
  /** Nothing answered: no network, an answer that CORS forbids to read, or `headers` failed; see `cause`. */
  | "network"
  /** A redirect in place of an answer: most often a proxy's login page. */
  | "redirected"
  /** Status 200 without a token: something else answers at `url`. */
  | "bad_response"
  /** `signal` fired. */
  | "aborted"
  /** Also `http_502` and the like, where something in front of the service answered. */
  | (string & {});

export class RolloutTokenError extends Error {
  constructor(
    code: TokenErrorCode,
    message: string,
    details?: { status?: number; requestId?: string; retryAfter?: number; cause?: unknown },
  );
  readonly name: "RolloutTokenError";
  readonly code: TokenErrorCode;
  /** Absent if nothing answered. */
  readonly status?: number;
  /** The same id is in the service's log. */
  readonly requestId?: string;
  /** Seconds after which it may be worth asking again. */
  readonly retryAfter?: number;
}
