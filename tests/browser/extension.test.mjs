// Tests token requests from the page of a browser extension, whose origin has the scheme chrome-extension.
import assert from "node:assert/strict";
import { after, test } from "node:test";

import { open, startExtension, startService, stop } from "./harness.mjs";

after(stop);

/** Requests a token with a header that needs a preflight. Returns the subject, the error code or the error's name. */
const ask = (page, url) =>
  page.evaluate(async (url) => {
    try {
      const response = await fetch(`${url}/rollout/token`, {
        method: "POST",
        credentials: "include",
        headers: { "X-Dev-User": "lea" },
      });
      const { token, code } = await response.json();
      return token ? JSON.parse(atob(token.split(".")[1])).sub : code;
    } catch (error) {
      return error.name;
    }
  }, url);

test("a listed extension gets a token, and an unlisted extension cannot read the response", async () => {
  const extension = await startExtension("<!doctype html><title>Extension</title>");
  const [listed, other] = await Promise.all([
    startService("dev", { ROLLOUT__ORIGINS__ALLOWED: extension.origin }),
    startService("dev", { ROLLOUT__ORIGINS__ALLOWED: extension.origin.replace(/.$/, "q") }),
  ]);
  const page = await open(extension.context);
  await page.goto(`${extension.origin}/page.html`);
  assert.equal(await page.evaluate(() => location.origin), extension.origin);
  assert.equal(await ask(page, listed), "lea");
  assert.equal(await ask(page, other), "TypeError");
});
