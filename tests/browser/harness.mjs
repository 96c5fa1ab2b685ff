// Functions for the tests in this folder: they start the binary, browsers, an example app and a fake Rollout API.
import { execFileSync, spawn } from "node:child_process";
import { createHash, generateKeyPairSync, X509Certificate } from "node:crypto";
import { once } from "node:events";
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import http from "node:http";
import https from "node:https";
import { createRequire } from "node:module";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../..", import.meta.url));
const installed = path.join(root, "target/browser");
const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";
for (const needed of [CHROMIUM, `${installed}/node_modules`, `${root}/target/react/node_modules`]) {
  if (!existsSync(needed)) throw new Error(`${needed} is missing: run make tools`);
}
const require = createRequire(path.join(installed, "package.json"));
const { chromium } = require("playwright-core");
const jwt = require("jsonwebtoken");

export const AXE = require.resolve("axe-core/axe.min.js");
export const CLIENT_ID = "browser-client";
const SECRET = "a-secret-of-the-browser-tests-that-is-longer-than-sixty-four-bytes-as-it-should-be";

const cleanups = [];
/** Stops everything that this module has started, in reverse order. */
export async function stop() {
  for (const clean of cleanups.splice(0).reverse()) await clean();
}

/** Creates a temporary directory, which is removed after the tests. */
function temporary() {
  const directory = mkdtempSync(path.join(tmpdir(), "rollout-token-"));
  cleanups.push(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

// ---- The browser -------------------------------------------------------------------------------------------------

/** Launch options of Debian's Chromium. It resolves the hosts of `tls` to this machine and trusts their certificate. */
const debians = (tls) => ({
  executablePath: CHROMIUM,
  args: [
    "--no-sandbox", // as root, in containers
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    // Blocks hosts outside this machine. With Playwright's request routing, Chromium would not send preflights.
    `--host-resolver-rules=${tls ? `${tls.rules}, ` : ""}MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1`,
    ...(tls ? [`--ignore-certificate-errors-spki-list=${tls.key}`] : []),
  ],
});

/** Starts a browser whose contexts are private windows, each with its own empty profile. */
export async function startBrowser(tls) {
  const browser = await chromium.launch(debians(tls));
  cleanups.push(() => browser.close());
  return browser;
}

/** Starts a browser with Chrome's default settings for cookies, and returns its only context. */
export async function startUsersBrowser(tls) {
  const profile = temporary();
  // By default, Chrome, Edge and Chromium block third-party cookies in private windows only. Debian's build, Safari,
  // Firefox and Brave block them in all windows.
  const INCOGNITO_ONLY = 2;
  mkdirSync(path.join(profile, "Default"));
  writeFileSync(path.join(profile, "Default/Preferences"), JSON.stringify({ profile: { cookie_controls_mode: INCOGNITO_ONLY } }));
  const context = await chromium.launchPersistentContext(profile, debians(tls));
  cleanups.push(() => context.close());
  return context;
}

/** Starts a browser with an extension that has one page. Returns the context and the extension's origin. */
export async function startExtension(page) {
  const directory = temporary();
  const { publicKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
  const key = publicKey.export({ type: "spki", format: "der" });
  const manifest = { manifest_version: 3, name: "Test", version: "1", key: key.toString("base64") };
  writeFileSync(path.join(directory, "manifest.json"), JSON.stringify(manifest));
  writeFileSync(path.join(directory, "page.html"), page);
  const digest = createHash("sha256").update(key).digest("hex").slice(0, 32);
  const id = digest.replace(/./g, (digit) => String.fromCharCode(97 + parseInt(digit, 16)));
  const { executablePath, args } = debians();
  const context = await chromium.launchPersistentContext(temporary(), {
    executablePath,
    // Playwright's headless mode does not support extensions, but Chromium's new headless mode does.
    headless: false,
    ignoreDefaultArgs: ["--disable-extensions"],
    args: [...args, "--headless=new", `--disable-extensions-except=${directory}`, `--load-extension=${directory}`],
  });
  cleanups.push(() => context.close());
  return { context, origin: `chrome-extension://${id}` };
}

/** Opens a page that records its errors in `page.wrong`. */
export async function open(context) {
  const page = await context.newPage();
  page.setDefaultTimeout(20_000);
  page.wrong = [];
  page.on("pageerror", (error) => page.wrong.push(`error: ${error.message}`));
  page.on("console", (message) => {
    // Many tests cause refused requests on purpose, so Chromium's message about them is ignored.
    if (message.type() === "error" && !/Failed to load resource/.test(message.text())) page.wrong.push(message.text());
  });
  return page;
}

// ---- The service -------------------------------------------------------------------------------------------------

/** Starts the built binary on a free port, and returns its URL. */
export async function startService(command, environment = {}) {
  const child = spawn(path.join(root, "target/debug/rollout-token"), [command], {
    env: {
      ROLLOUT__SERVER__LISTEN: "127.0.0.1:0",
      ROLLOUT__SERVER__ADMIN_LISTEN: "127.0.0.1:0",
      ROLLOUT__LOG__FORMAT: "json",
      ...environment,
    },
    stdio: ["ignore", "pipe", "pipe"],
  });
  cleanups.push(async () => {
    if (child.exitCode !== null) return;
    child.kill("SIGKILL");
    await once(child, "exit");
  });
  let said = "";
  child.stderr.on("data", (data) => (said += data));
  for await (const line of createInterface({ input: child.stdout })) {
    said += `${line}\n`;
    const address = /"listening".*?"address":"([^"]+)"/.exec(line)?.[1];
    if (!address) continue;
    child.stdout.resume();
    return `http://localhost:${address.split(":").pop()}`;
  }
  throw new Error(`The service did not start:\n${said}`);
}

/** Returns a port on which no program listens. */
export async function freePort() {
  const server = http.createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return String(port);
}

/** Starts a program that listens on `port`. Returns its URL once it accepts connections. */
export async function startProgram(command, parameters, { cwd, port, environment = {} }) {
  const options = { cwd, env: { ...process.env, ...environment }, stdio: ["ignore", "pipe", "pipe"] };
  // The program gets its own process group, because some servers start child processes.
  const child = spawn(command, parameters, { ...options, detached: true });
  cleanups.push(async () => {
    const closed = once(child, "close");
    process.kill(-child.pid, "SIGKILL");
    await closed;
  });
  let said = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (data) => (said += data));
  const deadline = Date.now() + 60_000;
  while (!(await accepts(port))) {
    if (child.exitCode !== null || Date.now() > deadline) throw new Error(`${command} did not start:\n${said}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return `http://localhost:${port}`;
}

const accepts = (port) =>
  new Promise((resolve) => {
    const socket = connect(port, "localhost");
    socket.on("connect", () => resolve(true) || socket.destroy());
    socket.on("error", () => resolve(false));
  });

// ---- The app ------------------------------------------------------------------------------------------------------

/**
 * Starts an example app. It serves its pages and its session endpoint, and forwards /rollout… to the service. A client
 * with the cookie `sid=NAME`, or with NAME as a bearer token, is signed in as NAME. If `backEndWorks` is false, the
 * session endpoint responds with 500.
 */
export async function startApp() {
  const app = {
    service: undefined, // the URL that /rollout… is forwarded to
    cookie: undefined, // the Set-Cookie header of /sign-in
    pages: undefined, // the directory of the app's pages
    backEndWorks: true,
    asked: [], // the token requests received
    instead: [], // response bodies for the next token requests, in place of the service's responses
  };
  const answers = {
    "/api/me": (request, response) => {
      if (!app.backEndWorks) return response.writeHead(500).end();
      const { cookie = "", authorization = "" } = request.headers;
      const user = (/(?:^|; )sid=(\w+)/.exec(cookie) ?? /^Bearer (\w+)$/.exec(authorization))?.[1];
      send(response, user ? 200 : 401, "application/json", JSON.stringify(user ? { user: { id: user } } : {}));
    },
    "/login": (_, response) => send(response, 200, "text/html", "<title>Sign in</title><h1>Sign in</h1>"),
    "/guarded/rollout/token": (_, response) => response.writeHead(302, { Location: "/login" }).end(),
    "/sign-in": (_, response) => send(response.setHeader("Set-Cookie", app.cookie), 200, "text/html", "<title>Signed in</title>"),
    "/blank": (_, response) => send(response, 200, "text/html", "<!doctype html><title>Blank</title>"),
  };
  app.url = await listen(async (request, response) => {
    const { pathname } = new URL(request.url, "http://localhost");
    if (answers[pathname]) return answers[pathname](request, response);
    if (!pathname.startsWith("/rollout")) return sendFile(response, path.join(app.pages, pathname === "/" ? "index.html" : pathname));
    if (/token$/.test(pathname)) {
      app.asked.push(request);
      if (app.instead.length) return send(response, 200, "application/json", JSON.stringify(app.instead.shift()));
    }
    pass(request, response, app.service);
  });
  return app;
}

/** Starts a TLS-terminating proxy for these hosts in front of the server at `url`. The browser maps port 443 to it. */
export async function startTls(hosts, url) {
  const directory = temporary();
  const [key, cert] = ["key.pem", "cert.pem"].map((name) => path.join(directory, name));
  const names = `subjectAltName=${hosts.map((host) => `DNS:${host}`)}`;
  const made = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key, "-out", cert, "-days", "2"];
  execFileSync("openssl", ["req", "-x509", ...made, "-subj", "/CN=tests", "-addext", names], { stdio: "pipe" });
  const certificate = { key: readFileSync(key), cert: readFileSync(cert) };
  const publicKey = new X509Certificate(certificate.cert).publicKey.export({ type: "spki", format: "der" });
  const tls = {
    asked: [], // pairs of request and response
    key: createHash("sha256").update(publicKey).digest("base64"),
  };
  const answer = (request, response) => {
    tls.asked.push([request, response]);
    pass(request, response, url);
  };
  const { port } = new URL(await listen(answer, { certificate }));
  tls.rules = hosts.map((host) => `MAP ${host}:443 127.0.0.1:${port}`).join(", ");
  return tls;
}

/** Starts the service with a `session_endpoint` extractor that calls this app. */
export const startServiceOf = (app, environment = {}) =>
  startService("serve", {
    ROLLOUT_CLIENT_ID: CLIENT_ID,
    ROLLOUT_CLIENT_SECRET: SECRET,
    ROLLOUT__SERVER__DOCS_ALIAS: "true",
    ROLLOUT__SESSION__EXTRACTORS: "app",
    ROLLOUT__EXTRACTORS__APP__KIND: "session_endpoint",
    ROLLOUT__EXTRACTORS__APP__URL: `${app.url}/api/me`,
    ROLLOUT__EXTRACTORS__APP__COOKIES: "sid",
    ROLLOUT__EXTRACTORS__APP__FORWARD_HEADERS: "Authorization",
    ROLLOUT__EXTRACTORS__APP__SUBJECT: "{user.id}",
    ...environment,
  });

/** A token response like that of the service, for a token that was issued `ago` seconds ago. */
export function tokenMade(ago, subject) {
  const iat = Math.floor(Date.now() / 1000) - ago;
  const token = jwt.sign({ iss: CLIENT_ID, sub: subject, iat, exp: iat + 900 }, SECRET, { algorithm: "HS512" });
  return { token, token_type: "Bearer", expires_in: 900, expires_at: iat + 900, refresh_in: 840 };
}

// ---- Rollout ------------------------------------------------------------------------------------------------------

/** Starts a fake of Rollout's API. It verifies tokens with the jsonwebtoken library; `ahead` shifts its clock. */
export async function startRollout() {
  const rollout = {
    ahead: 0, // seconds that its clock is ahead of the real time
    seen: [], // the requests: method, path, status, claims
    credentials: [],
  };
  const connector = (name, key) => ({
    name,
    entities: { crm: { people: { list: true } } },
    authByPlan: {
      default: { type: "apiToken", userInputsSchema: [{ type: "textfield", key, label: "API key", placeholder: "key" }] },
    },
  });
  const connectors = { lofty: connector("Lofty", "apiKey"), cloze: connector("Cloze", "apiKey") };

  const claimsOf = ({ headers }) => {
    const now = Math.floor(Date.now() / 1000) + rollout.ahead;
    try {
      const token = headers.authorization.replace(/^Bearer /, "");
      const claims = jwt.verify(token, SECRET, { algorithms: ["HS512"], issuer: CLIENT_ID, clockTimestamp: now });
      return claims.iat <= now + 1 && typeof claims.sub === "string" ? claims : undefined;
    } catch {
      return undefined;
    }
  };
  const answer = async (request, pathname) => {
    let text = "";
    for await (const chunk of request) text += chunk;
    switch (`${request.method} ${pathname}`) {
      case "GET /api/connectors":
        return connectors;
      case "POST /api/credentials": {
        const { appKey } = JSON.parse(text);
        rollout.credentials.push({ id: `c${rollout.credentials.length}`, createdAt: new Date().toISOString(), appKey, label: "Ann’s key" });
        return rollout.credentials.at(-1);
      }
      case "DELETE /api/credentials":
        rollout.credentials.pop();
        return {};
      default:
        return rollout.credentials;
    }
  };
  rollout.url = await listen(async (request, response) => {
    const { pathname } = new URL(request.url, "http://localhost");
    // Every origin is allowed, because a token, not a cookie, identifies the user. `Authorization` causes preflights.
    response.setHeader("Access-Control-Allow-Origin", "*");
    if (request.method === "OPTIONS") {
      rollout.seen.push({ method: "OPTIONS", pathname, status: 204 });
      response.setHeader("Access-Control-Allow-Methods", "GET, POST, DELETE");
      response.setHeader("Access-Control-Allow-Headers", request.headers["access-control-request-headers"] ?? "");
      return response.writeHead(204).end();
    }
    if (pathname.endsWith("/icon")) return send(response, 200, "image/svg+xml", '<svg xmlns="http://www.w3.org/2000/svg"/>');
    const claims = claimsOf(request);
    const status = claims ? 200 : 401;
    rollout.seen.push({ method: request.method, pathname, status, claims });
    const body = claims ? await answer(request, pathname) : { errors: [{ message: "Unauthorized" }] };
    send(response, status, "application/json", JSON.stringify(body));
  }, { name: "127.0.0.1" }); // another site than the app's, which is at localhost
  return rollout;
}

// ---- Building the examples ---------------------------------------------------------------------------------------

/**
 * Builds examples/react as its README describes, and returns the directory of the built page. `replaced` maps files of
 * the copied example to new content.
 */
export async function buildExample(name, environment, replaced = {}) {
  const react = path.join(root, "target/react");
  for (const part of ["index.html", "vite.config.js", "src"]) {
    cpSync(path.join(root, "examples/react", part), path.join(react, part), { recursive: true });
  }
  for (const [to, text] of Object.entries(replaced)) writeFileSync(path.join(react, to), text);
  const vite = spawn("node_modules/.bin/vite", ["build", "--outDir", name, "--logLevel", "error"], {
    cwd: react,
    env: { ...process.env, ...environment },
    stdio: "inherit",
  });
  const [code] = await once(vite, "exit");
  if (code) throw new Error("vite build failed for examples/react");
  return path.join(react, name);
}

/** Builds examples/html for the service at this URL, and bundles Rollout's components in one file, as esm.sh does. */
export async function buildHtmlExample(service) {
  const react = path.join(root, "target/react");
  const directory = path.join(react, "html");
  const { build } = createRequire(path.join(react, "package.json"))("vite");
  await build({
    configFile: false,
    root: react,
    logLevel: "error",
    define: { "process.env.NODE_ENV": '"production"' },
    // Use the React version that the page requests from esm.sh.
    resolve: { alias: { react: `${installed}/node_modules/react`, "react-dom": `${installed}/node_modules/react-dom` } },
    build: {
      outDir: directory,
      lib: { entry: "node_modules/@rollout/link-react/dist/index.js", formats: ["es"], fileName: "components" },
    },
  });
  const page = readFileSync(path.join(root, "examples/html/index.html"), "utf8");
  const there = page.replace('SERVICE = "http://localhost:8080"', `SERVICE = "${service}"`);
  if (there === page) throw new Error("examples/html/index.html has no line SERVICE = \"http://localhost:8080\"");
  writeFileSync(path.join(directory, "index.html"), there);
  return { directory, components: path.join(directory, "components.js") };
}

// ---- HTTP ---------------------------------------------------------------------------------------------------------

async function listen(handler, { name = "localhost", certificate } = {}) {
  const { createServer } = certificate ? https : http;
  const server = createServer(certificate ?? {}, (request, response) => {
    Promise.resolve(handler(request, response)).catch((error) => send(response, 500, "text/plain", error.stack));
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  cleanups.push(() => new Promise((resolve) => (server.close(resolve), server.closeAllConnections())));
  return `http://${name}:${server.address().port}`;
}

function send(response, status, type, body) {
  response.writeHead(status, { "Content-Type": type, "Cache-Control": "no-store" }).end(body);
}

const TYPES = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css" };

async function sendFile(response, file) {
  const content = await readFile(file).catch(() => undefined);
  if (content) send(response, 200, TYPES[path.extname(file)] ?? "application/octet-stream", content);
  else send(response, 404, "text/plain", "not found");
}

/** A reverse proxy. */
function pass(request, response, service) {
  const { port } = new URL(service);
  const call = http.request({ host: "127.0.0.1", port, path: request.url, method: request.method, headers: request.headers }, (answer) => {
    response.writeHead(answer.statusCode, answer.headers);
    answer.pipe(response);
  });
  call.on("error", () => send(response, 502, "text/plain", "bad gateway"));
  request.pipe(call);
}
