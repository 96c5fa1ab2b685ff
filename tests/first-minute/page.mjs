// Signs in to the app in Chromium, and checks that its page shows a token for this user. Usage: page.mjs URL USER
import assert from "node:assert/strict";

import { open, startBrowser, stop } from "../browser/harness.mjs";

const [url, user] = process.argv.slice(2);
try {
  const browser = await startBrowser();
  const page = await open(await browser.newContext());
  await page.goto(`${url}/sign-in`);
  await page.getByText("signed in").waitFor();
  await page.goto(url);
  await page.locator("#token", { hasText: "eyJ" }).waitFor();
  const [, claims] = (await page.locator("#token").textContent()).split(".");
  assert.equal(JSON.parse(Buffer.from(claims, "base64url")).sub, user);
  assert.deepEqual(page.wrong, []);
  console.log(`the page at ${url} shows a token for ${user}`);
} finally {
  await stop();
}
