// Express with express-session and connect-redis: the session is in Redis, and its id is in the cookie.
import { RedisStore } from "connect-redis";
import express from "express";
import session from "express-session";
import { createClient } from "redis";

const client = createClient({ url: process.env.STORE_URL });
await client.connect();

const app = express();
app.use(
  session({
    store: new RedisStore({ client }),
    secret: process.env.SESSION_SECRET,
    resave: false,
    saveUninitialized: false,
  }),
);
app.use(express.urlencoded());

app.post("/login", (request, response) => {
  const { username, password } = request.body;
  if (username !== process.env.APP_USER || password !== process.env.APP_PASSWORD) return response.sendStatus(403);
  request.session.regenerate(() => {
    request.session.passport = { user: "user-7" };
    response.sendStatus(204);
  });
});
app.post("/logout", (request, response) => {
  request.session.destroy(() => response.clearCookie("connect.sid").sendStatus(204));
});
app.get("/me", (request, response) => {
  const user = request.session.passport?.user;
  return user ? response.send(user) : response.sendStatus(401);
});

app.listen(Number(process.env.PORT), "127.0.0.1");
