// Tests which cookies and responses the browser passes on over https if the page and the service are on different
// sites. client.test.mjs and react.test.mjs test other origins of the same site.
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

/** Signs a user in at the service's site, with a cookie that has these attributes, and opens a page of this origin. */
async function visit(context, origin, attributes) {
  await context.clearCookies();
  app.cookie = `sid=ann; Path=/; HttpOnly; Secure; ${attributes}`;
  const page = await open(context);
  await page.goto(`${SERVICE}/sign-in`);
  await page.goto(`${origin}/blank`);
  return page;
}

/** The subject of the token that the helper fetches on that page, or the error. */
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

/** The token requests received, with their responses. */
const asked = () =>
  tls.asked
    .filter(([{ url }]) => url === "/rollout/token")
    .map(([{ method, headers }, { statusCode }]) => ({
      answer: `${method} ${statusCode}`,
      from: `${headers.origin} ${headers["sec-fetch-site"]}`,
      cookie: headers.cookie,
    }));

test("a page of a listed origin gets a token with the cookie of the other site", async () => {
  const page = await visit(users, PAGE, "SameSite=None");
  assert.equal(await subject(page), "ann");
  assert.deepEqual(asked(), [{ answer: "POST 200", from: `${PAGE} cross-site`, cookie: "sid=ann" }]);
  assert.deepEqual(page.wrong, []);
});

test("a request with a preflight works, and the preflight is cached", async () => {
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

test("a page of an unlisted origin is refused by the service and by the browser, although it sends the cookie", async () => {
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

test("a cookie that is not SameSite=None is not sent from another site", async () => {
  for (const attributes of ["SameSite=Lax", "SameSite=Strict", ""]) {
    const page = await visit(users, PAGE, attributes);
    assert.equal(await subject(page), "no_session 401", attributes);
    assert.deepEqual(asked(), [{ answer: "POST 401", from: `${PAGE} cross-site`, cookie: undefined }], attributes);
    // The cookie exists, because another origin on its own site sends it.
    await page.goto(`${SIBLING}/blank`);
    assert.equal(await subject(page), "ann", attributes);
    assert.deepEqual(asked(), [{ answer: "POST 200", from: `${SIBLING} same-site`, cookie: "sid=ann" }], attributes);
  }
});

test("a browser that blocks third-party cookies blocks this one, but no bearer token and no same-site cookie", async () => {
  const page = await visit(await browser.newContext(), PAGE, "SameSite=None");
  assert.equal(await subject(page), "no_session 401");
  assert.equal(await subject(page, { headers: { Authorization: "Bearer bob" } }), "bob");
  await page.goto(`${SIBLING}/blank`);
  assert.equal(await subject(page), "ann");
});
