// Tests the presets of `session_endpoint` with Better Auth and Auth.js: after sign-in, `explain` reports a token for
// the user; after sign-out, or with a changed session cookie, it reports 401. Usage: node check.mjs PATH-OF-ROLLOUT-TOKEN
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { createServer } from "node:http";
import { promisify } from "node:util";

import { Auth } from "@auth/core";
import Credentials from "@auth/core/providers/credentials";
import { betterAuth } from "better-auth";
import { memoryAdapter } from "better-auth/adapters/memory";

const SECRET = "a-secret-for-this-test-only-0123456789";
const [binary] = process.argv.slice(2);

/** Serves `handler`, which returns a Response for a Request, on a free port. */
const serve = (handler) =>
  new Promise((resolve) => {
    const server = createServer(async (incoming, outgoing) => {
      const chunks = await all(incoming);
      const headers = new Headers(Object.entries(incoming.headers).map(([name, value]) => [name, String(value)]));
      const body = chunks.length ? Buffer.concat(chunks) : undefined;
      const url = `http://127.0.0.1:${server.address().port}${incoming.url}`;
      const answer = await handler(new Request(url, { method: incoming.method, headers, body }));
      outgoing.writeHead(answer.status, { ...Object.fromEntries(answer.headers), "set-cookie": answer.headers.getSetCookie() });
      outgoing.end(Buffer.from(await answer.arrayBuffer()));
    });
    server.listen(0, "127.0.0.1", () => resolve({ server, url: `http://127.0.0.1:${server.address().port}` }));
  });

const all = async (stream) => {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return chunks;
};

/** A minimal browser, which only stores cookies and sends them. */
const browser = (url) => {
  const jar = new Map();
  const send = async (path, options = {}) => {
    const headers = { origin: url, cookie: cookies(), ...options.headers };
    const answer = await fetch(url + path, { redirect: "manual", ...options, headers });
    for (const line of answer.headers.getSetCookie()) {
      const [pair] = line.split(";");
      jar.set(pair.slice(0, pair.indexOf("=")), pair.slice(pair.indexOf("=") + 1));
    }
    return answer;
  };
  const cookies = () => [...jar].filter(([, value]) => value).map((pair) => pair.join("=")).join("; ");
  return { send, cookies };
};

/** Runs `explain` for a request with these cookies, and returns its output. */
const explain = async (preset, url, cookies) => {
  const env = {
    ROLLOUT_CLIENT_ID: "test",
    ROLLOUT_CLIENT_SECRET: "client-secret-client-secret-client-secret-client-secret-client-secret",
    ROLLOUT__SESSION__EXTRACTORS: "app",
    ROLLOUT__EXTRACTORS__APP__KIND: "session_endpoint",
    ROLLOUT__EXTRACTORS__APP__PRESET: preset,
    ROLLOUT__EXTRACTORS__APP__URL: url,
    // The preset for Auth.js has no default subject; the preset for Better Auth has this default.
    ROLLOUT__EXTRACTORS__APP__SUBJECT: "{user.id}",
  };
  const { stdout } = await promisify(execFile)(binary, ["explain", "-H", `Cookie: ${cookies}`], { env });
  return stdout;
};

const check = async (preset, app, user, cookies, signOut) => {
  const before = await explain(preset, app.url, cookies());
  assert.match(before, new RegExp(`subject = "${user}"`), before);
  assert.match(before, /answer: 200, a token/, before);
  const stolen = cookies();
  await signOut();
  const after = await explain(preset, app.url, cookies() || "other=1");
  assert.match(after, /answer: 401/, after);
  const forged = await explain(preset, app.url, stolen.replace(/session[_-]token=.{8}/, "$&x"));
  assert.match(forged, /answer: 401/, forged);
  console.log(`${preset}: the user gets a token until the sign-out`);
  return stolen;
};

const json = { method: "POST", headers: { "content-type": "application/json" } };

const betterAuthCase = async () => {
  const app = await serve((request) => auth.handler(request));
  const database = memoryAdapter({ user: [], session: [], account: [], verification: [] });
  const auth = betterAuth({ baseURL: app.url, secret: SECRET, database, emailAndPassword: { enabled: true } });
  const { send, cookies } = browser(app.url);
  const credentials = JSON.stringify({ name: "Ann", email: "ann@example.com", password: "correct horse" });
  const answer = await send("/api/auth/sign-up/email", { ...json, body: credentials });
  assert.equal(answer.status, 200, await answer.clone().text());
  const { user } = await answer.json();
  const signOut = () => send("/api/auth/sign-out", { ...json, body: "{}" });
  const stolen = await check("better-auth", app, user.id, cookies, signOut);
  const revoked = await explain("better-auth", app.url, stolen);
  assert.match(revoked, /answer: 401 no_session/, revoked);
  app.server.close();
};

const authjsCase = async () => {
  const config = {
    basePath: "/api/auth",
    secret: SECRET,
    trustHost: true,
    // Prevents Auth.js from logging the forged cookie that the test sends.
    logger: { error: () => {} },
    providers: [Credentials({ credentials: { name: {} }, authorize: ({ name }) => ({ id: `u-${name}`, name }) })],
    callbacks: {
      jwt: ({ token, user }) => (user ? { ...token, id: user.id } : token),
      session: ({ session, token }) => ({ ...session, user: { ...session.user, id: token.id } }),
    },
  };
  const app = await serve((request) => Auth(request, config));
  const { send, cookies } = browser(app.url);
  const form = async (path, fields) => {
    const { csrfToken } = await (await send("/api/auth/csrf")).json();
    const body = new URLSearchParams({ csrfToken, ...fields });
    return send(path, { method: "POST", body });
  };
  await form("/api/auth/callback/credentials", { name: "ann" });
  await check("authjs", app, "u-ann", cookies, () => form("/api/auth/signout", {}));
  app.server.close();
};

await betterAuthCase();
await authjsCase();
process.exit(0);
