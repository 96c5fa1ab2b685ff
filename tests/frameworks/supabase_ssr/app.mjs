// An app with @supabase/ssr and a fake GoTrue server. Access tokens expire within a second and refresh tokens are
// single-use, so each call to the app renews the session. The user's long metadata makes the library split the cookie
// into chunks.
import { createServer } from "node:http";

import { createServerClient, parseCookieHeader, serializeCookieHeader } from "@supabase/ssr";
import express from "express";

const user = {
  id: "3fb1a2c4-user",
  aud: "authenticated",
  role: "authenticated",
  email: "ann@example.com",
  user_metadata: { note: "x".repeat(4000) },
};

let usable = null;
const session = () => {
  usable = crypto.randomUUID();
  const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const now = Math.floor(Date.now() / 1000);
  const token = [part({ alg: "HS256", typ: "JWT" }), part({ sub: user.id, exp: now + 1, jti: usable }), part("signature")].join(".");
  return { access_token: token, refresh_token: usable, token_type: "bearer", expires_in: 1, expires_at: now + 1, user };
};

const gotrue = createServer(async (request, response) => {
  let text = "";
  for await (const chunk of request) text += chunk;
  const body = text ? JSON.parse(text) : {};
  const url = new URL(request.url, "http://gotrue");
  const answer = (status, value) => response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(value));
  // The `jti` of an access token is its refresh token. The access token is valid while this refresh token is usable.
  const id = () => JSON.parse(Buffer.from(request.headers.authorization.split(".")[1], "base64url")).jti;
  if (url.pathname.endsWith("/user")) return id() === usable ? answer(200, user) : answer(403, { code: 403, error_code: "session_not_found" });
  if (url.pathname.endsWith("/logout")) {
    usable = null;
    return response.writeHead(204).end();
  }
  const isRefresh = url.searchParams.get("grant_type") === "refresh_token";
  const isGood = isRefresh ? body.refresh_token === usable : body.password === process.env.APP_PASSWORD;
  return isGood ? answer(200, session()) : answer(400, { code: 400, error_code: "refresh_token_already_used", msg: "Invalid Refresh Token" });
});
await new Promise((resolve) => gotrue.listen(0, "127.0.0.1", resolve));

const app = express();
app.use(express.urlencoded({ extended: false }));

const client = (request, response) =>
  createServerClient(`http://127.0.0.1:${gotrue.address().port}`, "publishable-key", {
    // A placeholder: Node 20 has no WebSocket, and this app does not use one.
    realtime: { transport: class {} },
    cookies: {
      getAll: () => parseCookieHeader(request.headers.cookie ?? ""),
      setAll: (cookies) =>
        cookies.forEach(({ name, value, options }) => response.appendHeader("Set-Cookie", serializeCookieHeader(name, value, options))),
    },
  });

app.post("/login", async (request, response) => {
  const { error } = await client(request, response).auth.signInWithPassword({ email: user.email, password: request.body.password });
  response.status(error ? 403 : 200).send("");
});
app.post("/logout", async (request, response) => {
  await client(request, response).auth.signOut();
  response.send("");
});
app.get("/api/me", async (request, response) => {
  const { data } = await client(request, response).auth.getUser();
  if (!data.user) return response.sendStatus(401);
  response.json({ id: data.user.id });
});

app.listen(Number(process.env.PORT), "127.0.0.1");
