// Gets Rollout tokens from the rollout-token service, for a page in a browser. Types: client.d.ts.
// The API is described at /openapi.json.

const ATTEMPTS = 6; // in one call, if the answer is 429, 502, 503 or 504
const NETWORK_ATTEMPTS = 4; // in one call, if there is no answer: after sleep, a computer has no network at first
const PATIENCE = 30_000; // ms that one call waits between its attempts, in all
const TIMEOUT = 10_000; // ms for one attempt; the service itself gives up after 5 s
const MARGIN = 10_000; // ms before its expiry in which a token is not returned
// ms for which calls share an answer, even an error, so that a loop sends few requests. It is shorter than a second,
// because Rollout's components request a new token one second after Rollout refused theirs.
const HOLD = 500;
const LONGEST_HOLD = 60_000; // ms; a longer Retry-After is shortened to this
const LATER = new Set([429, 502, 503, 504]);

// Next to this module if the service serves it, otherwise /rollout/token.
const TOKEN_URL = (/^http.*\/rollout\/(?=client\.js$)/.exec(import.meta.url) ?? "/rollout/") + "token";

/** Reports why there is no token. `code` is from the service or from this module: see client.d.ts. */
export class RolloutTokenError extends Error {
  name = "RolloutTokenError";

  constructor(code, message, { status, requestId, retryAfter, cause } = {}) {
    super(message, { cause });
    Object.assign(this, { code, status, requestId, retryAfter });
  }
}

/** Creates a source of tokens for the signed-in user. Create one per page, outside of components. */
export function createTokenSource({
  url = TOKEN_URL,
  credentials = "include",
  headers,
  fetch = (...request) => globalThis.fetch(...request),
  signal,
  onSignedOut,
  clock = realClock, // `clock` and `random` are parameters for tests
  random = Math.random,
} = {}) {
  let kept; // the last token and its times
  let last; // the last request: in flight, or its answer

  const mark = () => ({ wall: clock.wall(), steady: clock.steady() });

  // Some browsers stop the monotonic clock during sleep, and the wall clock can be set: the longer time counts.
  // If the wall clock was set back by over 5 s, the elapsed time is unknown, and is taken as infinite.
  const since = (then) => {
    const wall = clock.wall() - then.wall;
    const steady = clock.steady() - then.steady;
    return wall < steady - 5_000 ? Infinity : Math.max(wall, steady);
  };

  const get = async () => {
    const age = kept ? since(kept.asked) : Infinity;
    if (age < kept?.refreshAfter) return kept.token;
    const next = fresh();
    if (!(age < kept?.life - MARGIN)) return next;
    next.catch(() => {}); // the current token is still valid; a later get() reports the error if it persists
    return kept.token;
  };

  const fresh = () => {
    if (last && (!last.ended || since(last.ended) < last.hold)) return last.token;
    const mine = (last = { hold: HOLD });
    mine.token = ask().then(
      (answer) => {
        mine.ended = mark();
        if (last === mine) kept = answer; // else clear() was called meanwhile, and the token may be of another user
        return answer.token;
      },
      (error) => {
        mine.ended = mark();
        mine.hold = Math.min(Math.max(HOLD, (error.retryAfter ?? 0) * 1000), LONGEST_HOLD);
        if (last === mine && error.status === 401) {
          kept = undefined;
          // Use a microtask: an exception in onSignedOut must not reject the caller's promise.
          if (onSignedOut) Promise.resolve(error).then(onSignedOut);
        }
        throw error;
      },
    );
    return mine.token;
  };

  const clear = () => {
    kept = last = undefined;
  };

  const ask = async () => {
    for (let attempt = 1, waited = 0; ; attempt++) {
      try {
        return await askOnce();
      } catch (error) {
        const attempts = LATER.has(error.status) ? ATTEMPTS : error.code === "network" ? NETWORK_ATTEMPTS : 1;
        // Add a random delay to Retry-After or the backoff, so that tabs do not retry at the same time.
        const wait = Math.max((error.retryAfter ?? 0) * 1000, 250 * 2 ** attempt) * (1 + random() / 2);
        waited += wait;
        if (attempt >= attempts || waited > PATIENCE) throw error;
        await within(wait, () => new Promise(() => {})).catch(() => {});
      }
    }
  };

  const askOnce = async () => {
    refuseIfAborted();
    const asked = mark();
    let response, text;
    try {
      await within(TIMEOUT, async (signal) => {
        const own = typeof headers === "function" ? await headers() : headers;
        response = await fetch(url, { method: "POST", credentials, headers: own, redirect: "manual", signal });
        text = await response.text();
      });
    } catch (cause) {
      refuseIfAborted();
      throw new RolloutTokenError("network", "The token service cannot be reached", { cause });
    }
    // The computer slept or the clock was set, so the token's remaining lifetime is unknown.
    if (since(asked) > 2 * TIMEOUT) throw new RolloutTokenError("network", "The answer came too late");
    return read(response, text, asked);
  };

  const read = ({ status, type, headers }, text, asked) => {
    let body;
    try {
      body = JSON.parse(text);
    } catch {
      // Not JSON, such as a proxy's error page: the status and headers are used.
    }
    const token = body?.token;
    if (status === 200 && token && typeof token === "string") {
      const life = (Number(body.expires_in) || 0) * 1000;
      // refresh_in is 0 for very short lifetimes: half of the lifetime prevents a request for each get(). The time
      // is shortened by a random part, so that tabs do not renew at the same time.
      const refresh = Math.min(Math.max((Number(body.refresh_in) || 0) * 1000, life / 2), life);
      return { token, asked, life, refreshAfter: refresh * (1 - random() / 20) };
    }
    const redirected = type === "opaqueredirect" || (status >= 300 && status < 400);
    const ownCode = redirected ? "redirected" : status === 200 ? "bad_response" : `http_${status}`;
    throw new RolloutTokenError(String(body?.code ?? ownCode), body?.detail ?? `No token: ${ownCode}`, {
      status,
      requestId: body?.request_id ?? headers.get("X-Request-Id") ?? undefined,
      retryAfter: seconds(headers.get("Retry-After"), clock.wall()),
    });
  };

  const refuseIfAborted = () => {
    if (signal?.aborted) throw new RolloutTokenError("aborted", "The signal was aborted", { cause: signal.reason });
  };

  // Runs `work` with a signal that aborts after `ms` or when the caller's aborts. Then the returned promise rejects,
  // even if `work` ignores the signal.
  const within = async (ms, work) => {
    const end = new AbortController();
    const abort = () => end.abort();
    const cancel = clock.after(ms, abort);
    signal?.addEventListener("abort", abort);
    const over = new Promise((_, reject) => end.signal.addEventListener("abort", () => reject(end.signal.reason)));
    try {
      return await Promise.race([work(end.signal), over]);
    } finally {
      cancel();
      signal?.removeEventListener("abort", abort);
    }
  };

  return { get, fresh, clear };
}

const realClock = {
  wall: () => Date.now(),
  steady: () => performance.now(),
  after: (ms, run) => {
    const timer = setTimeout(run, ms);
    return () => clearTimeout(timer);
  },
};

// Retry-After is a number of seconds or a date (RFC 9110, section 10.2.3).
function seconds(value, now) {
  if (!value) return undefined;
  const left = /^\d+$/.test(value) ? Number(value) : (Date.parse(value) - now) / 1000;
  return left >= 0 ? left : undefined;
}
