// Tests the sections of docs/connect.md from Express to Django: the section's web server runs with the section's
// configuration in front of the service, and a page in Chromium shows a token.
import assert from "node:assert/strict";
import { cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";

import { freePort, open, startBrowser, startProgram, startService, stop } from "./harness.mjs";

const root = fileURLToPath(new URL("../..", import.meta.url));
const docs = readFileSync(path.join(root, "docs/connect.md"), "utf8");
// A parent of this folder contains `node_modules`, so that Vite, Next.js and Node find the installed packages.
const work = path.join(root, "target/browser/connect");

let browser, service;
before(async () => {
  rmSync(work, { recursive: true, force: true });
  // Copy the files that `npm install rollout-token` would install.
  cpSync(path.join(root, "web"), path.join(root, "target/browser/node_modules/rollout-token"), { recursive: true });
  [browser, service] = await Promise.all([startBrowser(), startService("dev")]);
});
after(stop);

/** The code blocks of a section in docs/connect.md, with the address of the running service. */
function blocks(heading) {
  const section = docs.split(`\n## ${heading}\n`)[1].split("\n## ")[0];
  const found = [...section.matchAll(/```(\w+)\n([^]*?)```/g)].map(([, , text]) => text);
  assert.ok(found.length, heading);
  return found.map((text) => text.replaceAll("127.0.0.1:8080", new URL(service).host));
}

/** Creates a folder with these files, and returns its path. */
function app(name, files) {
  const folder = path.join(work, name);
  for (const [file, text] of Object.entries(files)) {
    mkdirSync(path.dirname(path.join(folder, file)), { recursive: true });
    writeFileSync(path.join(folder, file), text);
  }
  return folder;
}

const page = (from) => `<!doctype html><title>App</title><p id="token"></p>
<script type="module">
import { createTokenSource } from "${from}";
document.getElementById("token").textContent = await createTokenSource().get();
</script>`;

/** Opens the page and checks that it shows a token for the dev user. */
async function assertPageGetsToken(url) {
  const context = await browser.newContext();
  const opened = await open(context);
  await opened.goto(url);
  const token = opened.locator("#token", { hasText: "eyJ" });
  await token.waitFor();
  const [, claims] = (await token.textContent()).split(".");
  assert.equal(JSON.parse(Buffer.from(claims, "base64url")).sub, "dev-user");
  assert.deepEqual(opened.wrong, []);
  await context.close();
}

test("Express configuration forwards the token route", async () => {
  const port = await freePort();
  const [server] = blocks("Express");
  const folder = app("express", { "server.mjs": server.replace("3000", port), "public/index.html": page("/rollout/client.js") });
  const url = await startProgram("node", ["server.mjs"], { cwd: folder, port });
  await assertPageGetsToken(url);
});

test("Express with a mount path gets 404 not_found from the service", async () => {
  const port = await freePort();
  const [server] = blocks("Express");
  const mounted = server.replace(', pathFilter: "/rollout"', "").replace("app.use(create", 'app.use("/rollout", create');
  assert.notEqual(mounted, server);
  const folder = app("mounted", { "server.mjs": mounted.replace("3000", port), "public/index.html": "" });
  const url = await startProgram("node", ["server.mjs"], { cwd: folder, port });
  const answer = await fetch(`${url}/rollout/token`, { method: "POST" });
  assert.equal((await answer.json()).code, "not_found");
});

test("Vite configuration forwards the token route", async () => {
  const port = await freePort();
  const [config] = blocks("Vite");
  const folder = app("vite", { "vite.config.js": config, "index.html": page("rollout-token/client") });
  const vite = path.join(root, "target/browser/node_modules/vite/bin/vite.js");
  const url = await startProgram("node", [vite, "--port", port, "--strictPort"], { cwd: folder, port });
  await assertPageGetsToken(url);
});

test("Next.js configuration forwards the token route", async () => {
  const port = await freePort();
  const [config] = blocks("Next.js");
  const folder = app("next", {
    "package.json": "{}",
    "next.config.mjs": config,
    "app/layout.js": "export default ({ children }) => <html><body>{children}</body></html>;",
    "app/page.js": `"use client";
import { useEffect, useState } from "react";
import { createTokenSource } from "rollout-token/client";
const source = createTokenSource();
export default function Page() {
  const [token, setToken] = useState("");
  useEffect(() => void source.get().then(setToken), []);
  return <p id="token">{token}</p>;
}`,
  });
  const next = path.join(root, "target/browser/node_modules/next/dist/bin/next");
  const environment = { NEXT_TELEMETRY_DISABLED: "1" };
  const url = await startProgram("node", [next, "dev", "--port", port], { cwd: folder, port, environment });
  await assertPageGetsToken(url);
});

test("nginx configuration forwards the token route", async () => {
  const port = await freePort();
  const [location] = blocks("nginx");
  const folder = app("nginx", {
    "public/index.html": page("/rollout/client.js"),
    "nginx.conf": `daemon off; pid nginx.pid; error_log stderr; user root;
events {}
http {
  access_log off;
  types { text/html html; }
  server { listen 127.0.0.1:${port}; root public; ${location} }
}`,
  });
  const url = await startProgram("/usr/sbin/nginx", ["-p", folder, "-c", "nginx.conf"], { cwd: folder, port });
  await assertPageGetsToken(url);
});

test("Caddy configuration forwards the token route", async () => {
  const port = await freePort();
  const [site] = blocks("Caddy");
  const folder = app("caddy", {
    Caddyfile: `{\n admin off\n}\n${site.replace("localhost:3000", `http://localhost:${port}`)}`,
    "public/index.html": page("/rollout/client.js"),
  });
  const environment = { HOME: folder };
  const url = await startProgram("caddy", ["run", "--config", "Caddyfile"], { cwd: folder, port, environment });
  await assertPageGetsToken(url);
});

test("Django view forwards the token route", async () => {
  const port = await freePort();
  const [views, urls] = blocks("Django");
  const folder = app("django", {
    "site_/__init__.py": "",
    "site_/views.py": `${views}\nfrom pathlib import Path\ndef index(request):\n    return HttpResponse(Path("index.html").read_text())\n`,
    "site_/urls.py": `${urls}\nfrom .views import index\nurlpatterns.append(path("", index))\n`,
    "site_/settings.py": 'DEBUG = True\nROOT_URLCONF = "site_.urls"\nSECRET_KEY = "of-this-test"\nMIDDLEWARE = ["django.middleware.csrf.CsrfViewMiddleware"]\n',
    "index.html": page("/rollout/client.js"),
  });
  const python = path.join(root, "target/frameworks/venv/bin/python");
  const environment = { DJANGO_SETTINGS_MODULE: "site_.settings", PYTHONPATH: folder };
  const url = await startProgram(python, ["-m", "django", "runserver", "--noreload", String(port)], { cwd: folder, port, environment });
  await assertPageGetsToken(url);
});
