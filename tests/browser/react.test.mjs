// Tests examples/react with Rollout's npm package in Chromium. The app forwards token requests to the service, and a
// fake of Rollout's API verifies every token.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, beforeEach, test } from "node:test";

import { buildExample, CLIENT_ID, open, startApp, startBrowser, startRollout, startServiceOf, stop, tokenMade } from "./harness.mjs";

let browser, rollout, app, pages;

before(async () => {
  [browser, rollout, app] = await Promise.all([startBrowser(), startRollout(), startApp()]);
  app.service = await startServiceOf(app, { ROLLOUT__ORIGINS__ALLOWED: app.url });
  const api = { VITE_ROLLOUT_API_URL: `${rollout.url}/api` };
  pages = {
    sameOrigin: await buildExample("same-origin", api),
    otherOrigin: await buildExample("other-origin", { ...api, VITE_ROLLOUT_TOKEN_URL: `${app.service}/rollout/token` }),
    docs: await buildExample("docs", api, { "src/main.jsx": text("docs-snippet.jsx") }),
    plain: await buildExample("plain", api, { "src/main.jsx": plain() }),
  };
});
after(stop);

beforeEach(() => {
  Object.assign(app, { pages: pages.sameOrigin, asked: [], instead: [], backEndWorks: true });
  Object.assign(rollout, { ahead: 0, seen: [], credentials: [] });
});

const text = (name) => readFileSync(new URL(name, import.meta.url), "utf8");

/** Rollout's sample with the token function of docs/front-end.md in place of the sample's token function. */
function plain() {
  const [, ours] = /## Use fetch\n[^]*?```js\n([^]*?)```/.exec(text("../../docs/front-end.md"));
  const page = text("docs-snippet.jsx").replace(/function fetchRolloutToken[^]*?\n}\n/, ours);
  assert.ok(page.includes(ours));
  return page;
}

/** Opens the page as the signed-in user `name`, or signed out without a name. */
async function visit(name) {
  const page = await newPage(name);
  await page.goto(app.url);
  return page;
}

async function newPage(name) {
  const context = await browser.newContext();
  if (name) await context.addCookies([{ name: "sid", value: name, url: app.url, httpOnly: true, sameSite: "Lax" }]);
  return open(context);
}

const shown = (page) => page.getByText("Lofty").waitFor();

/** Checks that Rollout's API accepted all requests, with tokens for this user. */
function assertAccepted(name) {
  const calls = rollout.seen.filter(({ method }) => method !== "OPTIONS");
  for (const { status, claims } of calls) {
    assert.equal(status, 200);
    assert.deepEqual(Object.keys(claims), ["iss", "sub", "iat", "exp"]);
    assert.equal(claims.iss, CLIENT_ID);
    assert.equal(claims.sub, name);
    assert.equal(claims.exp - claims.iat, 900);
  }
  const paths = calls.map(({ pathname }) => pathname);
  assert.ok(paths.includes("/api/connectors") && paths.includes("/api/credentials"), paths.join());
}

test("same origin: the page requests one token in StrictMode, and Rollout accepts it", async () => {
  const page = await visit("ann");
  await shown(page);
  assert.equal(app.asked.length, 1);
  assert.equal(app.asked[0].method, "POST");
  assertAccepted("ann");
  assert.ok(rollout.seen.some(({ method }) => method === "OPTIONS"));
  assert.deepEqual(page.wrong, []);
});

test("another origin: the browser sends the session cookie, and the page can read the response", async () => {
  app.pages = pages.otherOrigin;
  const page = await newPage("bob");
  const [response] = await Promise.all([
    page.waitForResponse((response) => response.url().endsWith("/rollout/token")),
    page.goto(app.url),
  ]);
  await shown(page);
  const request = response.request();
  assert.equal(new URL(request.url()).origin, app.service);
  assert.equal((await request.allHeaders()).origin, app.url);
  assert.equal((await response.allHeaders())["access-control-allow-origin"], app.url);
  assert.equal(app.asked.length, 0, "the token request went to the service, not to the app");
  assertAccepted("bob");
  assert.deepEqual(page.wrong, []);
});

test("a user can save and delete a credential", async () => {
  const page = await visit("cleo");
  await page.getByText("Lofty").click();
  await page.getByLabel("API key").fill("secret");
  await page.getByRole("button", { name: "Save" }).click();
  await page.getByText("Ann’s key").waitFor();
  await page.getByRole("button", { name: "Delete" }).click();
  await page.getByRole("button", { name: "Delete" }).click();
  await page.getByLabel("API key").waitFor();
  assertAccepted("cleo");
  assert.equal(app.asked.length, 1);
});

test("an expired token is replaced after Rollout refuses it", async () => {
  app.instead = [tokenMade(1000, "dan")];
  const page = await visit("dan");
  await shown(page);
  assert.equal(app.asked.length, 2);
  assert.ok(rollout.seen.some(({ status }) => status === 401));
  assert.equal(rollout.seen.at(-1).claims.sub, "dan");
});

test("a call that gets 503 and then 200 succeeds", async () => {
  app.backEndWorks = false;
  const page = await newPage("eve");
  const [response] = await Promise.all([
    page.waitForResponse((response) => response.url().endsWith("/rollout/token")),
    page.goto(app.url),
  ]);
  assert.equal(response.status(), 503);
  assert.equal((await response.json()).code, "session_backend_unavailable");
  app.backEndWorks = true;
  await shown(page);
  assertAccepted("eve");
  assert.deepEqual(page.wrong, []);
});

test("a 401 shows the sign-in link, and Rollout is not called", async () => {
  const page = await visit();
  await page.getByRole("alert").getByText("You are signed out").waitFor();
  await page.getByRole("link", { name: "Sign in" }).click();
  await page.getByRole("heading", { name: "Sign in" }).waitFor();
  assert.equal(app.asked.length, 1);
  assert.deepEqual(rollout.seen.filter(({ method }) => method !== "OPTIONS"), []);
});

test("a response without a token shows an error, and Try again requests another token", async () => {
  app.instead = [{ detail: "not a token" }];
  const page = await newPage("fay");
  await page.clock.install();
  await page.goto(app.url);
  await page.getByRole("alert").getByText("bad_response").waitFor();
  await page.clock.fastForward(500); // client.js repeats no request within this time
  await page.getByRole("button", { name: "Try again" }).click();
  await shown(page);
  assert.equal(app.asked.length, 2);
});

test("a page that outlives its token can save a credential once the page is visible again", async () => {
  // Rollout's clock is set back, so that it accepts a token that was issued twenty minutes ago.
  rollout.ahead = -1200;
  app.instead = [tokenMade(1200, "gil")];
  const page = await visit("gil");
  await shown(page);
  assert.equal(app.asked.length, 1);
  rollout.ahead = 0;
  await Promise.all([
    page.waitForResponse((response) => response.url().includes("/credentials") && response.status() === 200),
    page.evaluate(() => document.dispatchEvent(new Event("visibilitychange"))),
  ]);
  assert.equal(app.asked.length, 2);
  await page.getByText("Lofty").click();
  await page.getByLabel("API key").fill("secret");
  await page.getByRole("button", { name: "Save" }).click();
  await page.getByText("Ann’s key").waitFor();
});

test("the sample in Rollout's docs works unchanged with server.docs_alias", async () => {
  app.pages = pages.docs;
  const page = await visit("hal");
  await shown(page);
  assert.deepEqual(app.asked.map(({ method, url }) => `${method} ${url}`), ["GET /rollout-token"]);
  assertAccepted("hal");
});

test("the token function of docs/front-end.md retries a failed request, and reports a repeated failure", async () => {
  app.pages = pages.plain;
  const { service } = app;
  app.service = "http://127.0.0.1:1";
  const page = await newPage("ivy");
  const failed = page.waitForResponse((response) => response.url().endsWith("/rollout/token"));
  await Promise.all([failed, page.goto(app.url)]);
  assert.notEqual((await failed).headers()["content-type"], "application/json");
  app.service = service;
  await shown(page);
  assert.deepEqual(app.asked.map(({ method, url }) => `${method} ${url}`), ["POST /rollout/token", "POST /rollout/token"]);
  assert.equal(rollout.seen.at(-1).claims.sub, "ivy");

  app.backEndWorks = false;
  await page.reload();
  await page.getByText("An unexpected error occurred").waitFor();
});

test("the token function of docs/front-end.md sends a signed-out user to the sign-in page", async () => {
  app.pages = pages.plain;
  const page = await visit();
  await page.getByRole("heading", { name: "Sign in" }).waitFor();
});

test("the sample in Rollout's docs shows an error to a signed-out user", async () => {
  app.pages = pages.docs;
  const page = await visit();
  await page.getByText("An unexpected error occurred").waitFor();
});
