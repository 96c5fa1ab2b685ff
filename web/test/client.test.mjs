// Unit tests of the browser helper, with a fake clock, a fake service and no network. `make web` runs them.
// tests/browser tests the helper in Chromium with the service.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { test } from "node:test";

import { createTokenSource, RolloutTokenError } from "../client.js";

/** A fake clock. Its wall clock and its monotonic clock can differ, as they do after a computer has slept. */
class Clock {
  #wall = 1_800_000_000_000;
  #steady = 5_000;
  #timers = new Set();

  wall = () => this.#wall;
  steady = () => this.#steady;
  after = (ms, run) => {
    const timer = { at: this.#steady + ms, run };
    this.#timers.add(timer);
    return () => this.#timers.delete(timer);
  };

  jump({ wall = 0, steady = 0 }) {
    this.#wall += wall;
    this.#steady += steady;
  }

  get timers() {
    return this.#timers.size;
  }

  /** Advances both clocks by `ms`, and runs each timer when it is due. */
  async pass(ms) {
    const end = this.#steady + ms;
    for (;;) {
      await settle();
      const [next] = [...this.#timers].filter(({ at }) => at <= end).sort((a, b) => a.at - b.at);
      const to = next ? Math.max(next.at, this.#steady) : end;
      this.jump({ wall: to - this.#steady, steady: to - this.#steady });
      if (!next) return settle();
      this.#timers.delete(next);
      next.run();
    }
  }
}

const settle = () => new Promise((resolve) => setImmediate(resolve));

const json = (status, body, headers = {}) =>
  new Response(typeof body === "string" ? body : JSON.stringify(body), { status, headers });
const token = (name = "t", life = 900) =>
  json(200, { token: name, token_type: "Bearer", expires_in: life, refresh_in: Math.max(0, life - Math.max(60, life / 20)) });
const problem = (status, code, headers) =>
  json(status, { code, status, title: "T", detail: `detail of ${code}`, request_id: "r-1" }, headers);
const never = () => new Promise(() => {});

/**
 * Creates a token source whose fake service returns these responses in turn, and then repeats the last one. Also
 * returns the requests that the service received, and the clock.
 */
function make(answers, options = {}) {
  const clock = options.clock ?? new Clock();
  const asked = [];
  let given = 0;
  const fetch = async (url, init) => {
    asked.push({ url, at: clock.steady(), ...init });
    const answer = answers[Math.min(given++, answers.length - 1)];
    const made = typeof answer === "function" ? await answer(init) : answer;
    return made.clone();
  };
  return { source: createTokenSource({ fetch, clock, random: () => 0, ...options }), asked, clock };
}

const numbered = () => {
  let count = 0;
  return () => token(`t${++count}`);
};

test("the request is a POST with credentials to the documented path, and none is sent before get() or fresh()", async () => {
  const { source, asked } = make([token("t1")]);
  await settle();
  assert.equal(asked.length, 0);
  assert.equal(await source.get(), "t1");
  const [{ url, method, credentials, redirect, body }] = asked;
  assert.deepEqual({ url, method, credentials, redirect, body }, {
    url: "/rollout/token", method: "POST", credentials: "include", redirect: "manual", body: undefined,
  });
});

test("url, credentials and headers are used as given, and a headers function is called before each request", async () => {
  let bearer = 0;
  const headers = async () => ({ Authorization: `Bearer ${++bearer}` });
  const { source, asked, clock } = make([token()], { url: "https://tokens.example/x", credentials: "omit", headers });
  await source.fresh();
  await clock.pass(500);
  await source.fresh();
  assert.deepEqual(asked.map((request) => request.headers.Authorization), ["Bearer 1", "Bearer 2"]);
  assert.equal(asked[0].url, "https://tokens.example/x");
  assert.equal(asked[0].credentials, "omit");
});

test("fifty concurrent calls to get() and fresh() share one request", async () => {
  const { source, asked } = make([numbered()]);
  const all = Array.from({ length: 50 }, (_, index) => (index % 2 ? source.get() : source.fresh()));
  assert.deepEqual(new Set(await Promise.all(all)), new Set(["t1"]));
  assert.equal(asked.length, 1);
});

test("get() returns the stored token until refresh_in has passed; then it returns that token at once and requests the next one", async () => {
  const { source, asked, clock } = make([numbered()]);
  assert.equal(await source.get(), "t1");
  await clock.pass(839_000);
  assert.equal(await source.get(), "t1");
  assert.equal(asked.length, 1);
  await clock.pass(2_000);
  assert.equal(await source.get(), "t1");
  await settle();
  assert.equal(asked.length, 2);
  assert.equal(await source.get(), "t2");
});

test("a token in the last ten seconds of its lifetime, or an expired token, is not returned", async () => {
  for (const passed of [890_000, 900_000, 3_600_000]) {
    const { source, clock } = make([numbered()]);
    await source.get();
    await clock.pass(passed);
    assert.equal(await source.get(), "t2", String(passed));
  }
});

test("fresh() requests a new token half a second after the last one, and get() returns the new token", async () => {
  const { source, asked, clock } = make([numbered()]);
  assert.equal(await source.fresh(), "t1");
  await clock.pass(500);
  assert.equal(await source.fresh(), "t2");
  assert.equal(await source.get(), "t2");
  assert.equal(asked.length, 2);
});

test("a loop of fresh() calls sends two requests per second, whatever the answer", async () => {
  for (const answer of [token(), problem(500, "internal"), problem(401, "no_session")]) {
    const { source, asked, clock } = make([answer]);
    for (let call = 0; call < 100; call++) {
      await source.fresh().catch(() => {});
      await clock.pass(50);
    }
    assert.equal(asked.length, 10);
  }
});

test("a fresh token is requested after sleep, even if a clock stood still or was set back", async () => {
  const hour = 3_600_000;
  for (const [name, jump] of Object.entries({
    "both clocks advanced": { wall: hour, steady: hour },
    "the monotonic clock stood still": { wall: hour },
    "the wall clock was set back": { wall: -hour, steady: hour },
    "the monotonic clock stood still, and the wall clock was set back": { wall: -hour },
  })) {
    const { source, clock } = make([numbered()]);
    await source.get();
    clock.jump(jump);
    assert.equal(await source.get(), "t2", name);
    assert.equal(await source.get(), "t2", name);
  }
});

test("a small correction of the wall clock causes no request", async () => {
  for (const wall of [-4_000, 4_000]) {
    const { source, asked, clock } = make([numbered()]);
    await source.get();
    clock.jump({ wall });
    await source.get();
    assert.equal(asked.length, 1);
  }
});

test("a request during which the computer slept is repeated", async () => {
  const clock = new Clock();
  const slept = () => (clock.jump({ wall: 600_000 }), token("old"));
  const { source, asked } = make([slept, token("new")], { clock });
  const wanted = source.fresh();
  await clock.pass(2_000);
  assert.equal(await wanted, "new");
  assert.equal(asked.length, 2);
});

test("a short-lived token is renewed after half of its lifetime, and a token of unknown lifetime after 500 ms", async () => {
  for (const [life, passed, requests] of [[30, 14_000, 1], [30, 16_000, 2], [60, 29_000, 1], [null, 400, 1], [null, 500, 2]]) {
    const { source, asked, clock } = make([token("t", life)]);
    await source.get();
    await clock.pass(passed);
    await source.get();
    await settle();
    assert.equal(asked.length, requests, `${life} s after ${passed} ms`);
  }
});

test("429 and 503 are retried inside the call, after Retry-After", async () => {
  for (const status of [429, 503]) {
    const { source, asked, clock } = make([problem(status, "later", { "Retry-After": "3" }), token("t1")]);
    const wanted = source.get();
    await clock.pass(2_999);
    assert.equal(asked.length, 1);
    await clock.pass(1);
    assert.equal(await wanted, "t1");
    assert.equal(asked.length, 2);
  }
});

test("the wait before a retry has jitter, and Retry-After may be a date", async () => {
  const date = { "Retry-After": new Date(new Clock().wall() + 4_000).toUTCString() };
  const { source, asked, clock } = make([problem(503, "later", date), token()], { random: () => 0.5 });
  const wanted = source.get();
  await clock.pass(4_999);
  assert.equal(asked.length, 1);
  await clock.pass(1);
  await wanted;
});

test("a 502 without Retry-After is retried five times, with doubling waits", async () => {
  const { source, asked, clock } = make([json(502, "<h1>Bad gateway</h1>")]);
  const refused = assert.rejects(source.get(), { name: "RolloutTokenError", code: "http_502", status: 502 });
  await clock.pass(60_000);
  await refused;
  assert.deepEqual(asked.map(({ at }) => at - 5_000), [0, 500, 1_500, 3_500, 7_500, 15_500]);
  assert.equal(clock.timers, 0);
});

test("get() fails at once if Retry-After is over 30 seconds, and sends no request until that time has passed", async () => {
  const { source, asked, clock } = make([problem(429, "rate_limited", { "Retry-After": "60" }), token("t1")]);
  await assert.rejects(source.get(), { code: "rate_limited", retryAfter: 60, requestId: "r-1" });
  await clock.pass(59_000);
  await assert.rejects(source.get(), { code: "rate_limited" });
  assert.equal(asked.length, 1);
  await clock.pass(1_001);
  assert.equal(await source.get(), "t1");
});

test("a request that fails with a network error is sent four times", async () => {
  const broken = () => Promise.reject(new TypeError("Failed to fetch"));
  const { source, asked, clock } = make([broken]);
  const refused = assert.rejects(source.get(), (error) => {
    assert.ok(error instanceof RolloutTokenError);
    assert.equal(error.code, "network");
    assert.equal(error.status, undefined);
    assert.ok(error.cause instanceof TypeError);
    return true;
  });
  await clock.pass(10_000);
  await refused;
  assert.deepEqual(asked.map(({ at }) => at - 5_000), [0, 500, 1_500, 3_500]);
});

test("a request without an answer is aborted after 10 s and repeated", async () => {
  const hanging = ({ signal }) =>
    new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
  const { source, asked, clock } = make([hanging, token("t1")]);
  const wanted = source.get();
  await clock.pass(10_500);
  assert.equal(await wanted, "t1");
  assert.equal(asked.length, 2);
});

test("a Retry-After of a day prevents requests for one minute only", async () => {
  const { source, clock } = make([problem(503, "maintenance", { "Retry-After": "86400" }), token("t1")]);
  await assert.rejects(source.fresh(), { code: "maintenance", retryAfter: 86400 });
  await clock.pass(59_000);
  await assert.rejects(source.fresh(), { code: "maintenance" });
  await clock.pass(1_000);
  assert.equal(await source.fresh(), "t1");
});

test("a headers function that fails or hangs is retried as a network failure", async () => {
  const works = (calls) => (calls > 1 ? {} : undefined);
  for (const broken of [() => Promise.reject(new Error("of the page")), never]) {
    let calls = 0;
    const headers = () => works(++calls) ?? broken();
    const { source, clock } = make([token("t1")], { headers });
    const wanted = source.get();
    await clock.pass(10_500);
    assert.equal(await wanted, "t1");
    assert.equal(clock.timers, 0);
  }
});

test("401 is not retried, and calls onSignedOut once even if get() is called in a loop", async () => {
  const told = [];
  const { source, asked, clock } = make([problem(401, "session_expired")], { onSignedOut: (error) => told.push(error) });
  for (let call = 0; call < 20; call++) await assert.rejects(source.get(), { code: "session_expired", status: 401 });
  assert.equal(asked.length, 1);
  assert.deepEqual(told.map(({ code }) => code), ["session_expired"]);
  await clock.pass(500);
  await assert.rejects(source.get());
  assert.equal(asked.length, 2);
});

test("401 discards the stored token", async () => {
  const { source, clock } = make([token("t1"), problem(401, "no_session")]);
  await source.get();
  await clock.pass(850_000);
  assert.equal(await source.get(), "t1");
  await settle();
  await assert.rejects(source.get(), { code: "no_session" });
});

test("get() returns the valid token during an outage", async () => {
  const { source, clock } = make([token("t1"), problem(503, "overloaded", { "Retry-After": "2" })]);
  await source.get();
  await clock.pass(850_000);
  for (let call = 0; call < 30; call++) {
    assert.equal(await source.get(), "t1");
    await clock.pass(1_000);
  }
});

test("statuses other than 429, 502, 503 and 504, and malformed answers, are errors without a retry", async () => {
  for (const [answer, want] of [
    [problem(403, "origin_not_allowed"), { code: "origin_not_allowed", status: 403, message: "detail of origin_not_allowed" }],
    [problem(500, "internal"), { code: "internal", status: 500, requestId: "r-1" }],
    [json(404, ""), { code: "http_404" }],
    [json(200, "<!doctype html>"), { code: "bad_response" }],
    [json(200, "null"), { code: "bad_response" }],
    [json(200, { token: 5 }), { code: "bad_response" }],
    [json(200, { token: "" }), { code: "bad_response" }],
    [json(400, { code: 16 }), { code: "16", status: 400 }],
    [json(302, ""), { code: "redirected" }],
    [json(401, "<html>", { "X-Request-Id": "r-2" }), { code: "http_401", requestId: "r-2" }],
  ]) {
    const { source, asked } = make([answer]);
    await assert.rejects(source.fresh(), want);
    assert.equal(asked.length, 1, want.code);
  }
});

test("the caller's signal aborts requests and retries, and cancels their timers", async () => {
  const heeding = ({ signal }) =>
    new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
  for (const answer of [heeding, never, problem(503, "later", { "Retry-After": "5" })]) {
    const end = new AbortController();
    const { source, clock } = make([answer], { signal: end.signal });
    const refused = assert.rejects(source.get(), { code: "aborted", cause: "gone" });
    await clock.pass(100);
    end.abort("gone");
    await refused;
    assert.equal(clock.timers, 0);
    await assert.rejects(source.fresh(), { code: "aborted" });
  }
});

test("clear() discards the token, and the answer to an earlier request changes nothing", async () => {
  const told = [];
  let answerFirst;
  const first = () => new Promise((resolve) => (answerFirst = resolve));
  const { source, asked } = make([first, token("of bob")], { onSignedOut: (error) => told.push(error) });
  const before = source.get();
  await settle();
  source.clear();
  assert.equal(await source.get(), "of bob");
  answerFirst(problem(401, "no_session"));
  await assert.rejects(before, { code: "no_session" });
  assert.equal(await source.get(), "of bob");
  assert.deepEqual([asked.length, told.length], [2, 0]);
});

test("an exception in onSignedOut does not reject the caller's promise, and is not swallowed", () => {
  // This runs in a separate process, because the test runner treats every unhandled rejection as a failure.
  const program = `
    import { createTokenSource } from "${new URL("../client.js", import.meta.url)}";
    const fetch = async () => new Response("{}", { status: 401 });
    const onSignedOut = () => { throw new Error("of the page"); };
    process.on("unhandledRejection", (error) => console.log("unhandled:", error.message));
    await createTokenSource({ fetch, onSignedOut }).get().catch((error) => console.log("caller:", error.code));`;
  const { stdout } = spawnSync(process.execPath, ["--input-type=module", "-e", program], { encoding: "utf8" });
  assert.deepEqual(stdout.trim().split("\n").sort(), ["caller: http_401", "unhandled: of the page"]);
});

test("forty tabs that open together all get a token if the service allows a burst of 20 requests, then one a second", async () => {
  const clock = new Clock();
  let left = 20, since = clock.steady(), requests = 0;
  const limited = () => {
    requests++;
    left = Math.min(20, left + (clock.steady() - since) / 1000);
    since = clock.steady();
    if (left < 1) return problem(429, "rate_limited", { "Retry-After": "1" });
    left -= 1;
    return token();
  };
  let seed = 7; // a fixed sequence, so that the test is deterministic
  const random = () => (seed = (seed * 16807) % 2147483647) / 2147483647;
  const tabs = Array.from({ length: 40 }, () => make([limited], { clock, random }).source.get());
  const done = Promise.allSettled(tabs);
  await clock.pass(60_000);
  const failed = (await done).filter(({ status }) => status === "rejected").length;
  assert.equal(failed, 0);
  assert.ok(requests < 160, `${requests} requests`);
});
