// Tests which cookies the browser sends and which responses a page can read, if the page and the service are on
// different sites. client.test.mjs and react.test.mjs test different origins of the same site.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { open, startApp, startBrowser, startServiceOf, startTls, startUsersBrowser, stop } from "./harness.mjs";

const SERVICE = "https://id.example.net";
const PAGE = "https://app.example.com"; // listed
const SIBLING = "https://app.example.net"; // listed, and of the service's own site
const STRANGER = "https://app.example.org";

let app, tls, users, browser;

before(async () => {
  app = await startApp();
  app.service = await startServiceOf(app, { ROLLOUT__ORIGINS__ALLOWED: `${PAGE},${SIBLING}` });
  tls = await startTls([SERVICE, PAGE, SIBLING, STRANGER].map((origin) => new URL(origin).host), app.url);
  [users, browser] = await Promise.all([startUsersBrowser(tls), startBrowser(tls)]);
});
after(stop);

/** Signs a user in on the service's site with a cookie that has these attributes. Then opens a page of `origin`. */
async function visit(context, origin, attributes) {
  await context.clearCookies();
  app.cookie = `sid=ann; Path=/; HttpOnly; Secure; ${attributes}`;
  const page = await open(context);
  await page.goto(`${SERVICE}/sign-in`);
  await page.goto(`${origin}/blank`);
  return page;
}

/** Requests a token with the browser helper in `page`. Returns the token's subject, or the error's code and status. */
function subject(page, options = {}) {
  tls.asked = [];
  return page.evaluate(
    async ([service, options]) => {
      const { createTokenSource } = await import(`${service}/rollout/client.js`);
      const source = createTokenSource({ url: `${service}/rollout/token`, credentials: "include", ...options });
      return source.fresh().then(
        (token) => JSON.parse(atob(token.split(".")[1])).sub,
        ({ code, status }) => `${code} ${status}`,
      );
    },
    [SERVICE, options],
  );
}

/** The token requests that the TLS proxy has received, with the response statuses. */
const asked = () =>
  tls.asked
    .filter(([{ url }]) => url === "/rollout/token")
    .map(([{ method, headers }, { statusCode }]) => ({
      answer: `${method} ${statusCode}`,
      from: `${headers.origin} ${headers["sec-fetch-site"]}`,
      cookie: headers.cookie,
    }));

test("a page of a listed cross-site origin gets a token with a SameSite=None cookie", async () => {
  const page = await visit(users, PAGE, "SameSite=None");
  assert.equal(await subject(page), "ann");
  assert.deepEqual(asked(), [{ answer: "POST 200", from: `${PAGE} cross-site`, cookie: "sid=ann" }]);
  assert.deepEqual(page.wrong, []);
});

test("a cross-site request with a preflight gets a token, and the preflight is cached", async () => {
  const page = await visit(users, PAGE, "SameSite=None");
  const headers = { "X-CSRF-Token": "x", "Content-Type": "application/json" };
  assert.equal(await subject(page, { headers }), "ann");
  const from = `${PAGE} cross-site`;
  assert.deepEqual(asked(), [
    { answer: "OPTIONS 204", from, cookie: undefined },
    { answer: "POST 200", from, cookie: "sid=ann" },
  ]);
  assert.equal(await subject(page, { headers }), "ann");
  assert.deepEqual(asked(), [{ answer: "POST 200", from, cookie: "sid=ann" }]);
  assert.deepEqual(page.wrong, []);
});

test("a request from an unlisted cross-site origin with the cookie is 403, and the page cannot read the response", async () => {
  const page = await visit(users, STRANGER, "SameSite=None");
  const ask = (headers) =>
    page.evaluate(
      ([url, headers]) => fetch(url, { method: "POST", credentials: "include", headers }).then(() => "read", String),
      [`${SERVICE}/rollout/token`, headers],
    );
  const from = `${STRANGER} cross-site`;
  tls.asked = [];
  assert.equal(await ask({}), "TypeError: Failed to fetch");
  assert.deepEqual(asked(), [{ answer: "POST 403", from, cookie: "sid=ann" }]);
  tls.asked = [];
  assert.equal(await ask({ "X-CSRF-Token": "x" }), "TypeError: Failed to fetch");
  assert.deepEqual(asked(), [{ answer: "OPTIONS 403", from, cookie: undefined }]);
  assert.equal(page.wrong.filter((text) => /blocked by CORS policy/.test(text)).length, 2, page.wrong.join());
});

test("a cookie without SameSite=None is not sent from another site", async () => {
  for (const attributes of ["SameSite=Lax", "SameSite=Strict", ""]) {
    const page = await visit(users, PAGE, attributes);
    assert.equal(await subject(page), "no_session 401", attributes);
    assert.deepEqual(asked(), [{ answer: "POST 401", from: `${PAGE} cross-site`, cookie: undefined }], attributes);
    // The browser has stored the cookie: it sends the cookie from another origin of the same site.
    await page.goto(`${SIBLING}/blank`);
    assert.equal(await subject(page), "ann", attributes);
    assert.deepEqual(asked(), [{ answer: "POST 200", from: `${SIBLING} same-site`, cookie: "sid=ann" }], attributes);
  }
});

test("a browser that blocks third-party cookies still sends bearer tokens and same-site cookies", async () => {
  const page = await visit(await browser.newContext(), PAGE, "SameSite=None");
  assert.equal(await subject(page), "no_session 401");
  assert.equal(await subject(page, { headers: { Authorization: "Bearer bob" } }), "bob");
  await page.goto(`${SIBLING}/blank`);
  assert.equal(await subject(page), "ann");
});
