// Tests the browser helper that the service serves, in Chromium. web/test tests its logic with a fake clock.
import assert from "node:assert/strict";
import { after, before, beforeEach, test } from "node:test";

import { buildHtmlExample, open, startApp, startBrowser, startRollout, startServiceOf, stop } from "./harness.mjs";

let browser, rollout, app;

before(async () => {
  [browser, rollout, app] = await Promise.all([startBrowser(), startRollout(), startApp()]);
  app.service = await startServiceOf(app, { ROLLOUT__ORIGINS__ALLOWED: app.url });
});
after(stop);

beforeEach(() => {
  Object.assign(app, { asked: [], instead: [], backEndWorks: true });
  Object.assign(rollout, { ahead: 0, seen: [], credentials: [] });
});

async function signedIn(name) {
  const context = await browser.newContext();
  if (name) await context.addCookies([{ name: "sid", value: name, url: app.url }]);
  return context;
}

/** Opens a page of the app with a token source. The page records the calls to `onSignedOut` in `told`. */
async function pageWithSource(context, options = {}) {
  const page = await open(context);
  await page.goto(`${app.url}/blank`);
  await page.evaluate(async (options) => {
    const { createTokenSource } = await import("/rollout/client.js");
    window.told = [];
    window.source = createTokenSource({ ...options, onSignedOut: (error) => told.push(error.code) });
    window.outcome = (promise) => promise.then(() => "token", ({ code, status }) => `${code} ${status}`);
  }, options);
  return page;
}

test("fifty concurrent get() calls make one request", async () => {
  const page = await pageWithSource(await signedIn("ann"));
  const tokens = await page.evaluate(() => Promise.all(Array.from({ length: 50 }, () => source.get())));
  assert.equal(new Set(tokens).size, 1);
  assert.equal(app.asked.length, 1);
});

test("five tabs that open together make one request each, and each gets a token", async () => {
  const context = await signedIn("bob");
  const tabs = await Promise.all(Array.from({ length: 5 }, () => pageWithSource(context)));
  const outcomes = await Promise.all(tabs.map((tab) => tab.evaluate(() => outcome(source.fresh()))));
  assert.deepEqual(outcomes, Array(5).fill("token"));
  assert.equal(app.asked.length, 5);
});

test("a tab that wakes from sleep gets a fresh token, whether or not performance.now() advanced", async () => {
  const hour = 3_600_000;
  for (const sleep of [
    (page) => page.clock.fastForward(hour),
    async (page) => page.clock.setSystemTime((await page.evaluate(() => Date.now())) + hour),
  ]) {
    app.asked = [];
    const context = await signedIn("cleo");
    await context.clock.install();
    const page = await pageWithSource(context);
    await page.evaluate(() => Promise.all([source.get(), source.get()]));
    await page.evaluate(() => source.get());
    assert.equal(app.asked.length, 1);
    await sleep(page);
    assert.equal(await page.evaluate(() => outcome(source.get())), "token");
    assert.equal(app.asked.length, 2);
    assert.equal(await page.evaluate(() => outcome(source.get())), "token");
    assert.equal(app.asked.length, 2, "the second get() returns the new token without a request");
  }
});

test("a 401 calls onSignedOut with the service's error code", async () => {
  const page = await pageWithSource(await signedIn());
  assert.equal(await page.evaluate(() => outcome(source.get())), "no_session 401");
  assert.deepEqual(await page.evaluate(() => told), ["no_session"]);
});

test("the GET samples in Rollout's docs get a token with server.docs_alias", async () => {
  const page = await pageWithSource(await signedIn("ida"));
  const plain = () => fetch("/rollout-token").then((resp) => resp.json()).then((data) => data.token);
  // The Rails and Django samples in Rollout's docs fetch the token in this way.
  const withHeaders = async () => {
    const headers = { "Content-Type": "application/json", "X-CSRF-Token": "x" };
    const data = await (await fetch("/rollout-token", { method: "GET", headers })).json();
    return data.token;
  };
  for (const sample of [plain, withHeaders]) {
    const [, claims] = (await page.evaluate(sample)).split(".");
    assert.equal(JSON.parse(Buffer.from(claims, "base64url")).sub, "ida");
  }
});

test("a login page in place of the token response is an error, not a 401", async () => {
  const context = await signedIn("fay");
  for (const [url, told] of [["/guarded/rollout/token", "redirected 0"], ["/login", "bad_response 200"]]) {
    const page = await pageWithSource(context, { url });
    assert.equal(await page.evaluate(() => outcome(source.get())), told);
  }
});

test("a page of an unlisted origin cannot read the token response", async () => {
  const unlisted = await startServiceOf(app);
  const page = await pageWithSource(await signedIn("dan"));
  const read = (url) => fetch(url, { method: "POST", credentials: "include" }).then(() => "read", () => "nothing");
  assert.equal(await page.evaluate(read, `${app.service}/rollout/token`), "read");
  assert.equal(await page.evaluate(read, `${unlisted}/rollout/token`), "nothing");
  assert.match(page.wrong.join(), /blocked by CORS policy/);
});

test("a page of a listed origin can read 401 and 503 responses", async () => {
  const page = await pageWithSource(await signedIn(), { url: `${app.service}/rollout/token` });
  assert.equal(await page.evaluate(() => outcome(source.get())), "no_session 401");
  assert.deepEqual(page.wrong, []);

  app.backEndWorks = false;
  await page.context().addCookies([{ name: "sid", value: "gus", url: app.url }]);
  const wait = await page.evaluate(async (url) => {
    const response = await fetch(url, { method: "POST", credentials: "include" });
    return `${response.status} ${response.headers.get("Retry-After")}`;
  }, `${app.service}/rollout/token`);
  assert.match(wait, /^503 \d+$/);
});

test("examples/html shows Rollout's components and calls Rollout's API with a token", async () => {
  const { directory, components } = await buildHtmlExample(app.service);
  app.pages = directory;
  const context = await signedIn("eve");
  // Answer requests for esm.sh and Rollout's API from this machine.
  await context.route("https://esm.sh/**", (route) =>
    route.request().url().endsWith(".css")
      ? route.fulfill({ contentType: "text/css", body: "" })
      : route.fulfill({ contentType: "text/javascript", path: components }),
  );
  await context.route("https://universal.rollout.com/**", async (route) => {
    const { pathname, search } = new URL(route.request().url());
    await route.fulfill({ response: await route.fetch({ url: rollout.url + pathname + search }) });
  });
  const page = await open(context);
  await page.goto(app.url);
  await page.getByText("Lofty").waitFor();
  await page.getByRole("button", { name: "How many" }).click();
  await page.getByRole("status").getByText("0").waitFor();
  assert.ok(rollout.seen.length > 0 && rollout.seen.every(({ claims }) => claims?.sub === "eve"));
  assert.deepEqual(page.wrong, []);
});
