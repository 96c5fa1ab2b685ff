// The demo app of docker-compose.yml, a minimal replacement for your app. It signs users in, stores their sessions, and
// forwards /rollout/token and /rollout/client.js to rollout-token with the signed-in user. Never expose it to a
// network: it has no passwords.

import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import http from 'node:http';

const { PORT = '3000', ROLLOUT_TOKEN_URL, PROXY_SECRET_FILE } = process.env;
const proxySecret = readFileSync(PROXY_SECRET_FILE, 'utf8').trim();
// The paths of rollout-token that the browser needs: the token route, and the helper script that fetches tokens.
const FORWARDED_PATHS = ['/rollout/token', '/rollout/client.js'];
const sessions = new Map(); // maps the cookie's random value to the user's name

const sessionId = (request) => /(?:^|; )session=([\w-]+)/.exec(request.headers.cookie ?? '')?.[1];

const page = (body) => `<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Demo app</title>
<style>body{font:1rem/1.5 system-ui;max-width:44rem;margin:3rem auto;padding:0 1rem}pre{white-space:pre-wrap;overflow-wrap:anywhere}</style>
${body}</html>`;

const signInPage = page(`<h1>Sign in</h1>
<form method="post" action="/sign-in"><label>Name <input name="user" value="ann" pattern="[A-Za-z0-9._@\\-]{1,64}" required autofocus></label>
<button>Sign in</button></form>`);

// The name needs no escaping, because signIn() accepts only characters that are harmless in HTML.
const homePage = (user) => page(`<h1>Hello, ${user}</h1>
<p><button id="fetch">Fetch a Rollout token</button></p><pre id="shown"></pre>
<form method="post" action="/sign-out"><button>Sign out</button></form>
<script>
  document.getElementById('fetch').onclick = async () => {
    const response = await fetch('/rollout/token', { method: 'POST' });
    const answer = await response.json();
    const claims = answer.token && JSON.parse(new TextDecoder().decode(Uint8Array.from(
      atob(answer.token.split('.')[1].replace(/-/g, '+').replace(/_/g, '/')), (c) => c.charCodeAt(0))));
    document.getElementById('shown').textContent =
      response.status + ' ' + JSON.stringify(answer, null, 2) + (claims ? '\\n\\nclaims ' + JSON.stringify(claims, null, 2) : '');
  };
</script>`);

// Copy this part into your own app. It forwards only the listed headers of the browser's request, so that a browser
// cannot set X-Demo-User or X-Demo-Secret. rollout-token checks the request's origin.
const PASSED_ON = ['host', 'origin', 'sec-fetch-site', 'x-request-id', 'if-none-match'];

function forward(path, request, response, user) {
  const headers = { 'Content-Length': 0, 'X-Demo-Secret': proxySecret };
  for (const name of PASSED_ON) if (request.headers[name]) headers[name] = request.headers[name];
  if (user) headers['X-Demo-User'] = user; // without this header, rollout-token answers 401 no_session
  const call = http.request(new URL(path, ROLLOUT_TOKEN_URL), { method: request.method, headers, timeout: 10_000 }, (answer) => {
    response.writeHead(answer.statusCode, answer.headers);
    answer.pipe(response);
  });
  call.on('timeout', () => call.destroy(new Error('timed out')));
  call.on('error', (error) => {
    console.error(`cannot reach rollout-token: ${error.message}`);
    if (response.headersSent) return response.destroy();
    response.writeHead(502, { 'Content-Type': 'application/problem+json', 'Cache-Control': 'no-store' });
    response.end(JSON.stringify({ title: 'rollout-token cannot be reached', status: 502, code: 'bad_gateway' }));
  });
  call.end();
}

async function signIn(request, response) {
  let body = '';
  for await (const chunk of request) {
    body += chunk;
    if (body.length > 1024) return send(response, 413, 'too long');
  }
  const user = new URLSearchParams(body).get('user') ?? '';
  if (!/^[\w.@-]{1,64}$/.test(user)) return send(response, 400, 'a name has 1 to 64 characters: A-Z a-z 0-9 . _ @ -');
  const id = randomBytes(24).toString('base64url');
  sessions.set(id, user);
  redirect(response, `session=${id}; HttpOnly; SameSite=Lax; Path=/`);
}

function send(response, status, text, type = 'text/plain') {
  response.writeHead(status, { 'Content-Type': `${type}; charset=utf-8`, 'Cache-Control': 'no-store' });
  response.end(text);
}

function redirect(response, cookie) {
  response.writeHead(303, { Location: '/', 'Set-Cookie': cookie });
  response.end();
}

const server = http.createServer((request, response) => {
  const id = sessionId(request);
  const user = sessions.get(id);
  const path = request.url.split('?')[0];
  if (FORWARDED_PATHS.includes(path)) return forward(path, request, response, user);
  switch (`${request.method} ${path}`) {
    case 'GET /': return send(response, 200, user ? homePage(user) : signInPage, 'text/html');
    case 'POST /sign-in': return signIn(request, response).catch(() => response.destroy());
    case 'POST /sign-out':
      sessions.delete(id);
      return redirect(response, 'session=; Max-Age=0; Path=/');
    default: return send(response, 404, 'not found');
  }
});
server.listen(Number(PORT), () => console.log(`demo app: http://localhost:${server.address().port}`));
// Linux applies no default action for these signals to process 1 of a container, so exit explicitly.
for (const signal of ['SIGTERM', 'SIGINT']) process.on(signal, () => process.exit(0));
