// Tests docs/connect.md: each block runs in its server, with the service behind it and a page in Chromium that shows
// the service's token.
import assert from "node:assert/strict";
import { cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";

import { freePort, open, startBrowser, startProgram, startService, stop } from "./harness.mjs";

const root = fileURLToPath(new URL("../..", import.meta.url));
const docs = readFileSync(path.join(root, "docs/connect.md"), "utf8");
// The folder is below the folder of the installed packages, where servers look for them.
const work = path.join(root, "target/browser/connect");

let browser, service;
before(async () => {
  rmSync(work, { recursive: true, force: true });
  // The same files as after `npm install rollout-token`.
  cpSync(path.join(root, "web"), path.join(root, "target/browser/node_modules/rollout-token"), { recursive: true });
  [browser, service] = await Promise.all([startBrowser(), startService("dev")]);
});
after(stop);

/** The code blocks of a section, with the service's real address. */
function blocks(heading) {
  const section = docs.split(`\n## ${heading}\n`)[1].split("\n## ")[0];
  const found = [...section.matchAll(/```(\w+)\n([^]*?)```/g)].map(([, , text]) => text);
  assert.ok(found.length, heading);
  return found.map((text) => text.replaceAll("127.0.0.1:8080", new URL(service).host));
}

/** Creates a folder with these files. */
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

test("Express", async () => {
  const port = await freePort();
  const [server] = blocks("Express");
  const folder = app("express", { "server.mjs": server.replace("3000", port), "public/index.html": page("/rollout/client.js") });
  const url = await startProgram("node", ["server.mjs"], { cwd: folder, port });
  await assertPageGetsToken(url);
});

test("Express with a mount path: the answer and the log say what is wrong", async () => {
  const port = await freePort();
  const [server] = blocks("Express");
  const mounted = server.replace(', pathFilter: "/rollout"', "").replace("app.use(create", 'app.use("/rollout", create');
  assert.notEqual(mounted, server);
  const folder = app("mounted", { "server.mjs": mounted.replace("3000", port), "public/index.html": "" });
  const url = await startProgram("node", ["server.mjs"], { cwd: folder, port });
  const answer = await fetch(`${url}/rollout/token`, { method: "POST" });
  assert.equal((await answer.json()).code, "not_found");
});

test("Vite", async () => {
  const port = await freePort();
  const [config] = blocks("Vite");
  const folder = app("vite", { "vite.config.js": config, "index.html": page("rollout-token/client") });
  const vite = path.join(root, "target/browser/node_modules/vite/bin/vite.js");
  const url = await startProgram("node", [vite, "--port", port, "--strictPort"], { cwd: folder, port });
  await assertPageGetsToken(url);
});

test("Next.js", async () => {
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

test("nginx", async () => {
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

test("Caddy", async () => {
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

test("Django", async () => {
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
