// The token route in Express with jsonwebtoken.
const express = require("express");
const jwt = require("jsonwebtoken");

const { PORT, SESSION_SECRET, ROLLOUT_CLIENT_ID, ROLLOUT_CLIENT_SECRET } = process.env;
const app = express();

app.post("/rollout/token", (request, response) => {
  const [scheme, session] = (request.headers.authorization ?? "").split(" ");
  let user;
  try {
    if (scheme !== "Bearer") throw new Error("no bearer token");
    user = jwt.verify(session, SESSION_SECRET, { algorithms: ["HS256"] });
  } catch {
    return response.status(401).json({ error: "unauthorized" });
  }
  const iat = Math.floor(Date.now() / 1000);
  const claims = { iss: ROLLOUT_CLIENT_ID, sub: user.sub, iat, exp: iat + 900 };
  const token = jwt.sign(claims, ROLLOUT_CLIENT_SECRET, { algorithm: "HS512" });
  response.json({ token, expires_in: 900 });
});

app.listen(PORT, "127.0.0.1");
