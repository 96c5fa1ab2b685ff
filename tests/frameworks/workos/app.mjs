// An app with WorkOS' library and sealed session, and a fake WorkOS API. Access tokens have already expired and refresh
// tokens are single-use, so each call to the app renews the session.
import { createServer } from "node:http";

import { WorkOS } from "@workos-inc/node";
import express from "express";
import { exportJWK, generateKeyPair, SignJWT } from "jose";

const user = { object: "user", id: "user_01ANN", email: "ann@example.com", email_verified: true };
const { privateKey, publicKey } = await generateKeyPair("RS256");
const jwk = { ...(await exportJWK(publicKey)), alg: "RS256", use: "sig", kid: "1" };

let usable = null;
const tokens = async () => {
  usable = crypto.randomUUID();
  const claims = { sid: "session_01", sub: user.id };
  const now = Math.floor(Date.now() / 1000);
  const jwt = new SignJWT(claims).setProtectedHeader({ alg: "RS256", kid: "1" }).setIssuedAt(now - 300).setExpirationTime(now - 60);
  return { user, organization_id: null, access_token: await jwt.sign(privateKey), refresh_token: usable, authentication_method: "Password" };
};

const api = createServer(async (request, response) => {
  let text = "";
  for await (const chunk of request) text += chunk;
  const answer = (status, value) => response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(value));
  if (request.url.startsWith("/sso/jwks/")) return answer(200, { keys: [jwk] });
  const body = JSON.parse(text);
  const isGood = body.grant_type === "refresh_token" ? body.refresh_token === usable : body.code === process.env.APP_PASSWORD;
  return isGood ? answer(200, await tokens()) : answer(400, { error: "invalid_grant", error_description: "Refresh token already exchanged." });
});
await new Promise((resolve) => api.listen(0, "127.0.0.1", resolve));

const workos = new WorkOS("sk_test", {
  clientId: "client_01",
  apiHostname: "127.0.0.1",
  port: api.address().port,
  https: false,
});
const cookiePassword = process.env.SECRET_KEY;
const cookie = (value) => `wos-session=${value}; Path=/; HttpOnly; SameSite=Lax`;

const app = express();
app.use(express.urlencoded({ extended: false }));
app.post("/login", async (request, response) => {
  const { sealedSession } = await workos.userManagement.authenticateWithCode({
    code: request.body.password,
    session: { sealSession: true, cookiePassword },
  });
  response.setHeader("Set-Cookie", cookie(sealedSession)).send("");
});
app.post("/logout", (_, response) => {
  usable = null;
  response.setHeader("Set-Cookie", `${cookie("")}; Max-Age=0`).send("");
});

// This route is the same as in the recipe.
app.get("/api/me", async (request, response) => {
  const sessionData = /(?:^|; )wos-session=([^;]*)/.exec(request.headers.cookie ?? "")?.[1];
  const session = workos.userManagement.loadSealedSession({ sessionData, cookiePassword });
  const now = await session.authenticate();
  if (now.authenticated) return response.json({ id: now.user.id });
  const renewed = await session.refresh();
  if (!renewed.authenticated) return response.sendStatus(401);
  response.setHeader("Set-Cookie", cookie(renewed.sealedSession)).json({ id: renewed.user.id });
});

app.listen(Number(process.env.PORT), "127.0.0.1");
