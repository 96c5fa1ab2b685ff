// The token route in Express for an app that stores its sessions in Redis or PostgreSQL (express-session), or for an
// app that asks another service for the user. `POST /login` starts a session.
const express = require("express");
const session = require("express-session");
const jwt = require("jsonwebtoken");

const { PORT, SESSION_SECRET, ROLLOUT_CLIENT_ID, ROLLOUT_CLIENT_SECRET, STORE, STORE_URL } = process.env;

async function redisStore() {
  const { RedisStore } = require("connect-redis");
  const client = require("redis").createClient({ url: STORE_URL });
  await client.connect();
  return new RedisStore({ client });
}

function postgresStore() {
  const PgStore = require("connect-pg-simple")(session);
  return new PgStore({ conString: STORE_URL, createTableIfMissing: true });
}

// Returns the user of the request, according to the endpoint at STORE_URL.
async function askedUser(request) {
  const answer = await fetch(STORE_URL, { headers: { cookie: request.headers.cookie ?? "" } });
  return answer.ok ? (await answer.json()).sub : undefined;
}

async function main() {
  const app = express();
  if (STORE === "endpoint") {
    app.use(async (request, _, next) => {
      request.user = await askedUser(request);
      next();
    });
  } else {
    const store = STORE === "redis" ? await redisStore() : postgresStore();
    app.use(session({ store, secret: SESSION_SECRET, resave: false, saveUninitialized: false }));
    app.use((request, _, next) => {
      request.user = request.session.passport?.user;
      next();
    });
    app.post("/login", (request, response) => {
      request.session.passport = { user: "user-1" };
      response.status(204).end();
    });
  }
  app.post("/rollout/token", (request, response) => {
    if (!request.user) return response.status(401).json({ error: "unauthorized" });
    const iat = Math.floor(Date.now() / 1000);
    const claims = { iss: ROLLOUT_CLIENT_ID, sub: request.user, iat, exp: iat + 900 };
    const token = jwt.sign(claims, ROLLOUT_CLIENT_SECRET, { algorithm: "HS512" });
    response.json({ token, expires_in: 900 });
  });
  app.listen(PORT, "127.0.0.1");
}

main();
