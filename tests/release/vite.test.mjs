// Tests what a developer who has only Node does, from an empty folder to a token in a new Vite page: installs the
// packed npm packages, and uses the Vite configuration in docs/connect.md. Prints the steps and the time.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, test } from "node:test";
import { fileURLToPath } from "node:url";

import { freePort, open, startBrowser, startProgram, stop } from "../browser/harness.mjs";

const root = fileURLToPath(new URL("../..", import.meta.url));
const dist = path.join(root, "target/dist");
const packages = readdirSync(dist).filter((name) => name.endsWith(".tgz")).map((name) => path.join(dist, name));
const folder = mkdtempSync(path.join(tmpdir(), "node-only-"));
after(async () => {
  await stop();
  rmSync(folder, { recursive: true });
});

/** This `PATH` contains Node, but no program of the repository. */
const environment = { PATH: `${path.dirname(process.execPath)}:/usr/bin:/bin`, HOME: process.env.HOME };
const npm = (cwd, ...parameters) => execFileSync("npm", parameters, { cwd, env: { ...process.env, ...environment }, stdio: ["ignore", "ignore", "inherit"] });

test("a new Vite app with the npm packages shows a token", async () => {
  assert.ok(packages.length >= 2, "make release");
  const started = Date.now();
  const steps = [];
  const step = (name) => steps.push(name);

  step("npm create vite@latest app -- --template vanilla");
  npm(folder, "create", "--yes", "vite@9", "app", "--", "--template", "vanilla", "--no-interactive");
  const app = path.join(folder, "app");
  step("npm install rollout-token");
  npm(app, "install", "--no-audit", "--no-fund", ...packages);
  step("edit vite.config.js");
  const [service, page] = [await freePort(), await freePort()];
  const config = /## Vite\n[^]*?```js\n([^]*?)```/.exec(readFileSync(path.join(root, "docs/connect.md"), "utf8"))[1];
  writeFileSync(path.join(app, "vite.config.js"), config.replace("8080", service));
  step("edit src/main.js");

  writeFileSync(
    path.join(app, "src/main.js"),
    `import { createTokenSource } from "rollout-token/client";
const rollout = createTokenSource();
document.querySelector("#app").textContent = await rollout.get();`,
  );
  step("npx rollout-token dev");
  const listen = { ROLLOUT__SERVER__LISTEN: `127.0.0.1:${service}`, ROLLOUT__SERVER__ADMIN_LISTEN: "127.0.0.1:0" };
  await startProgram("npx", ["rollout-token", "dev"], { cwd: app, port: service, environment: { ...environment, ...listen } });
  step("npm run dev");
  const url = await startProgram("npm", ["run", "dev", "--", "--port", page, "--strictPort"], { cwd: app, port: page, environment });

  const browser = await startBrowser();
  const opened = await open(await browser.newContext());
  await opened.goto(url);
  await opened.locator("#app", { hasText: "eyJ" }).waitFor();
  assert.deepEqual(opened.wrong, []);
  const claims = JSON.parse(Buffer.from((await opened.locator("#app").textContent()).split(".")[1], "base64url"));
  assert.equal(claims.exp - claims.iat, 900);
  console.log(`${steps.length} steps, ${Math.round((Date.now() - started) / 1000)} s: ${steps.join("; ")}`);
});
