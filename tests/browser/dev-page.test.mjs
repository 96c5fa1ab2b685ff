// Tests the page of `rollout-token dev` with a mouse and with the keyboard only. axe checks its accessibility in light
// and dark mode, on desktop and phone screens.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { createHmac } from "node:crypto";
import { readFileSync } from "node:fs";
import { after, before, test } from "node:test";
import { promisify } from "node:util";

import { AXE, open, startApp, startBrowser, startService, stop } from "./harness.mjs";

let browser, url, listed;

before(async () => {
  [browser, { url: listed }] = await Promise.all([startBrowser(), startApp()]);
  url = await startService("dev", { ROLLOUT__ORIGINS__ALLOWED: listed });
});
after(stop);

async function visit(options = {}, prepare = async () => {}) {
  const context = await browser.newContext(options);
  const page = await open(context);
  page.asked = [];
  page.on("request", (request) => page.asked.push(request.url()));
  await prepare(page);
  await page.goto(url);
  return page;
}

const button = (page, name) => page.getByRole("button", { name });
const rows = (page) => page.getByRole("region", { name: "Log" }).getByRole("row");

const explain = async (page, request) => {
  await page.getByLabel("Request, as cURL").fill(request);
  await button(page, "Explain").click();
};

/** The terms and values of a description list (`dl`), such as the list of claims. */
const terms = (page, part) =>
  page.locator(`dl#${part}`).evaluate((list) =>
    Object.fromEntries([...list.querySelectorAll("dt")].map((term) => [term.textContent, term.nextSibling.firstChild.data])),
  );

test("choosing a user shows that user's token with its header, claims and countdown", async () => {
  const page = await visit();
  await page.getByLabel("User", { exact: true }).fill("o'hara 東京");
  await button(page, "Get a token").click();
  await page.getByRole("timer").getByText(/^14:5\d$|^15:00$/).waitFor();
  assert.deepEqual(await terms(page, "head"), { typ: "JWT", alg: "HS512" });
  const { iss, sub, iat, exp } = await terms(page, "claims");
  assert.deepEqual([iss, sub, exp - iat], ["dev-client", "o'hara 東京", 900]);
  assert.equal((await page.locator("#token").textContent()).split(".").length, 3);
  assert.match(await page.getByRole("status").textContent(), /A token for o'hara 東京, valid for 15 minutes/);

  await button(page, "org:42").click();
  await page.getByRole("definition").filter({ hasText: "org:42" }).waitFor();
  assert.equal(await page.getByLabel("User", { exact: true }).inputValue(), "org:42");
  assert.equal(await rows(page).count(), 3, "the table has a header row and two requests");
  assert.deepEqual(page.wrong, []);
});

test("an expired token is shown as expired, and Renew requests another token", async () => {
  const page = await visit({}, (page) => page.clock.install());
  await button(page, "Get a token").click();
  await page.getByText(/requests the next token in 1[34]:/).waitFor();
  await page.clock.fastForward("14:10");
  await page.getByText("requests the next token at the next get()").waitFor();
  await page.clock.fastForward("02:00");
  await page.getByRole("timer").getByText("expired").waitFor();
  await page.getByRole("status").getByText("The token has expired").waitFor();
  await button(page, "Renew").click();
  await page.getByRole("timer").getByText(/^14:5\d$|^15:00$/).waitFor();
  assert.deepEqual(page.wrong, []);
});

test("fifty calls to get() add one line to the log, which can be cleared", async () => {
  const page = await visit();
  await button(page, "Call get() 50 times").click();
  await page.getByRole("status").getByText("50 calls to get(), 1 request").waitFor();
  assert.equal(await rows(page).count(), 2);
  await button(page, "Clear").click();
  await page.getByText("None yet.").waitFor();
  assert.equal(await rows(page).count(), 0);
});

test("the page shows real 401 and 429 responses, and samples of 403 and 503 responses", async () => {
  const page = await visit();
  for (const [name, kind, words] of [
    ["401 real answer", "a real answer", ["HTTP/1.1 401", "www-authenticate: Bearer", '"code": "session_invalid"']],
    ["429 real answer", "a real answer", ["HTTP/1.1 429", "retry-after: ", '"code": "rate_limited"']],
    ["403 sample", "a sample", ["HTTP/1.1 403", '"code": "origin_not_allowed"']],
    ["503 sample", "a sample", ["HTTP/1.1 503", "retry-after: ", '"code": "session_backend_unavailable"']],
  ]) {
    await button(page, name).click();
    await page.locator("#refusal-answer").filter({ hasText: words[0] }).waitFor();
    const text = await page.locator("#refusal").innerText();
    for (const word of [kind, "application/problem+json", "client.js", ...words]) assert.ok(text.includes(word), `${name}: ${word}`);
    assert.equal(await button(page, name).getAttribute("aria-pressed"), "true");
  }
  assert.deepEqual(page.wrong, []);
});

test("a refused request shows the error code instead of the previous token", async () => {
  const page = await visit();
  await button(page, "ann").click();
  await page.getByRole("timer").waitFor();
  await page.getByLabel("User", { exact: true }).fill("x".repeat(257));
  await button(page, "Get a token").click();
  await page.getByText("401 session_invalid").waitFor();
  assert.equal(await page.getByRole("timer").count(), 0, "the previous user's token must not be shown");
});

test("the page's snippets get a token without being changed", async () => {
  const page = await visit({ permissions: ["clipboard-read", "clipboard-write"] });
  const copied = async (tab) => {
    await page.getByRole("tab", { name: tab, exact: true }).click();
    await button(page, "Copy the snippet").click();
    await page.getByRole("status").getByText("Copied").waitFor();
    const text = await page.evaluate(() => navigator.clipboard.readText());
    assert.equal(text, await page.locator("#snippet").textContent());
    assert.ok(text.includes(url), tab);
    await page.evaluate(() => document.getElementById("status").replaceChildren());
    return text;
  };
  const snippets = {};
  for (const tab of ["fetch", "client.js", "React", "Rollout’s docs", "curl"]) snippets[tab] = await copied(tab);

  // Run the snippets on a page of the same origin that has no Content-Security-Policy.
  const other = await page.context().newPage();
  await other.goto(`${url}/healthz`);
  const subject = (token) => JSON.parse(Buffer.from(token.split(".")[1], "base64url")).sub;
  assert.equal(subject(await other.evaluate(`(async () => { ${snippets.fetch}; return token; })()`)), "dev-user");
  assert.equal(subject(await other.evaluate(`(async () => { ${snippets["Rollout’s docs"]}; return fetchRolloutToken(); })()`)), "dev-user");
  const [asked] = await Promise.all([
    other.waitForRequest(/universal\.rollout\.com/), // fails, but is sent with a token
    other.addScriptTag({ type: "module", content: snippets["client.js"] }),
  ]);
  assert.equal(subject((await asked.allHeaders()).authorization), "dev-user");

  await page.getByLabel("User", { exact: true }).fill("o'hara");
  const { stdout } = await promisify(execFile)("bash", ["-c", await copied("curl")]);
  assert.equal(subject(JSON.parse(stdout).token), "o'hara");
});

test("a page of a listed origin can choose the user with X-Dev-User", async () => {
  const page = await open(await browser.newContext());
  await page.goto(`${listed}/blank`);
  const subject = await page.evaluate(async (url) => {
    const { createTokenSource } = await import(`${url}/rollout/client.js`);
    const token = await createTokenSource({ url: `${url}/rollout/token`, headers: { "X-Dev-User": "lea" } }).get();
    return JSON.parse(atob(token.split(".")[1])).sub;
  }, url);
  assert.equal(subject, "lea");
});

test("the copy button copies the token", async () => {
  const page = await visit({ permissions: ["clipboard-read", "clipboard-write"] });
  await button(page, "Get a token").click();
  await button(page, "Copy the token").click();
  await page.getByRole("status").getByText("Copied").waitFor();
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), await page.locator("#token").textContent());
});

test("the page shows the credentials, the extractor's steps and the response for a pasted request", async () => {
  // Start `dev` with an operator's configuration for an app's sessions.
  const secret = "the-secret-of-an-app-in-the-browser-tests";
  const service = await startService("dev", {
    ROLLOUT__SESSION__EXTRACTORS: "web",
    ROLLOUT__EXTRACTORS__WEB__KIND: "jwt",
    ROLLOUT__EXTRACTORS__WEB__FROM: "cookie:session",
    ROLLOUT__EXTRACTORS__WEB__SECRET: secret,
    ROLLOUT__EXTRACTORS__WEB__ALGORITHMS: "HS256",
    ROLLOUT__EXTRACTORS__WEB__ALLOW_ANY_AUDIENCE: "true",
  });
  const signed = (key) => {
    const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
    const text = `${part({ alg: "HS256" })}.${part({ sub: "ann", exp: 4_000_000_000 })}`;
    return `${text}.${createHmac("sha256", key).update(text).digest("base64url")}`;
  };
  const page = await open(await browser.newContext());
  await page.goto(service);
  await page.getByText("Sessions are read by web (jwt)").waitFor();
  await page.getByRole("tab", { name: "Your session" }).click();
  const states = () => page.locator(".flow li").evaluateAll((parts) => parts.map(({ className }) => className));

  await explain(page, `curl 'http://localhost:5000/' -H 'Cookie: theme=dark; session=${signed(secret)}'`);
  await page.locator("#answer", { hasText: "200, a token for ann" }).waitFor();
  assert.deepEqual(await states(), ["good", "good", "good", "good", "good"]);

  // The service would refuse this request before any extractor, but the page still shows the extractor's result.
  await explain(page, `Host: app.example\nOrigin: https://evil.example\nCookie: session=${signed(secret)}`);
  await page.locator("#answer", { hasText: "403 origin_not_allowed" }).waitFor();
  await page.getByText("origin: refused with reason origin_is_not_host").waitFor();
  assert.deepEqual(await states(), ["good", "good", "good", "good", "bad"]);

  // The service would refuse this head as ambiguous, but it is only the body of the page's request.
  const ambiguous = "POST /app#part HTTP/1.1\nContent-Length: 3\nTransfer-Encoding: chunked\n";
  await explain(page, `${ambiguous}Cookie: session=${signed(secret)}`);
  await page.locator("#answer", { hasText: "200, a token for ann" }).waitFor();

  await explain(page, `Cookie: session=${signed("another")}`);
  await page.locator("#answer", { hasText: "401 session_invalid" }).waitFor();
  assert.deepEqual(await states(), ["good", "bad", "", "", ""]);
  await page.getByText("rejected with reason bad_signature").waitFor();

  await explain(page, "Cookie: connect.sid=s%3AabcDEF0123456789abcDEF0123456789.2Zb6Z4mYx0QkqzQJw0cX8p9cQk0Yp3mB1s7sYk1xv5E");
  await page.locator("#answer", { hasText: "401 no_session" }).waitFor();
  await page.getByText("cookie:connect.sid: express-session").waitFor();
  await page.getByText("web looked for cookie:session").waitFor();

  await explain(page, "curl http://localhost/");
  await page.getByText("the request has no header").first().waitFor();

  await fetch(`${service}/rollout/token`, { method: "POST" });
  await page.locator("#recent-table").getByText("no_credential").waitFor();
  assert.deepEqual(page.wrong, []);
});

test("all controls can be used with the keyboard alone", async () => {
  const page = await visit();
  const focused = () => page.evaluate(() => document.activeElement.id || document.activeElement.textContent.trim());
  const press = async (key, times = 1) => {
    for (let time = 0; time < times; time++) await page.keyboard.press(key);
  };
  const tabTo = async (want) => {
    const passed = [];
    for (let step = 0; step < 30; step++) {
      await press("Tab");
      passed.push(await focused());
      if (passed.at(-1).startsWith(want)) return;
    }
    assert.fail(`${want} is not reached: ${passed.join(", ")}`);
  };

  await press("Tab");
  assert.equal(await focused(), "Skip to the content");
  await press("Enter");
  await tabTo("user");
  await page.keyboard.type("kim"); // the field's text is selected when it is reached
  await press("Enter");
  await page.getByRole("definition").filter({ hasText: "kim" }).waitFor();
  await tabTo("renew");
  await press("Enter");
  await tabTo("fifty");
  await press("Space");
  await page.getByRole("status").getByText("1 request").waitFor();
  await tabTo("tab-0");
  await press("ArrowRight", 2);
  assert.equal(await focused(), "tab-2");
  assert.match(await page.locator("#snippet").textContent(), /RolloutLinkProvider/);
  await press("End");
  assert.match(await page.locator("#snippet").textContent(), /^curl/);
  await press("Home");
  await press("ArrowLeft");
  assert.equal(await focused(), "tab-4", "ArrowLeft on the first tab selects the last tab");
  await tabTo("snippet");
  await tabTo("401");
  await press("Enter");
  await page.getByText('"session_invalid"').waitFor();

  await page.getByRole("tab", { name: "Get a token" }).focus();
  await press("ArrowRight");
  assert.equal(await focused(), "tab-session");
  await tabTo("request");
  await page.keyboard.type("Cookie: a=b");
  await tabTo("Explain");
  await press("Enter");
  await page.locator("#answer", { hasText: "200, a token for dev-user" }).waitFor();
});

test("axe finds no violation, nothing overflows, and no other host is contacted", async () => {
  for (const colorScheme of ["light", "dark"]) {
    for (const width of [1280, 360]) {
      const page = await visit({ colorScheme, viewport: { width, height: 800 }, reducedMotion: "reduce" });
      const check = async (state) => {
        await page.evaluate(readFileSync(AXE, "utf8"));
        const { violations, passes } = await page.evaluate(() => axe.run());
        const found = violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(" ")}`);
        assert.deepEqual(found, [], `${state}, ${colorScheme}, ${width} px`);
        assert.ok(passes.length > 20, "axe checked more than 20 rules");
        assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), width, state);
      };
      await check("at first");
      await button(page, "0198f3c2").click();
      await page.getByRole("timer").waitFor();
      await button(page, "403 sample").click();
      await page.getByText('"origin_not_allowed"').waitFor();
      await page.getByRole("tab", { name: "React" }).click();
      await check("with everything shown");
      await page.getByRole("tab", { name: "Your session" }).click();
      await explain(page, "curl http://localhost:3000/ -b 'connect.sid=s%3AabcDEF0123456789abcDEF0123456789.2Zb6Z4mYx0QkqzQJw0cX8p9cQk0Yp3mB1s7sYk1xv5E'");
      await page.getByText("a token for dev-user").first().waitFor();
      await page.locator("#recent-table").waitFor();
      await check("with a request explained");
      assert.deepEqual(page.wrong, []);
      assert.deepEqual(page.asked.filter((asked) => !asked.startsWith(`${url}/`)), []);
    }
  }
});
