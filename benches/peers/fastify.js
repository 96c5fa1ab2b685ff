// The token route in Fastify with jsonwebtoken.
const fastify = require("fastify")();
const jwt = require("jsonwebtoken");

const { PORT, SESSION_SECRET, ROLLOUT_CLIENT_ID, ROLLOUT_CLIENT_SECRET } = process.env;

fastify.post("/rollout/token", async (request, reply) => {
  const [scheme, session] = (request.headers.authorization ?? "").split(" ");
  let user;
  try {
    if (scheme !== "Bearer") throw new Error("no bearer token");
    user = jwt.verify(session, SESSION_SECRET, { algorithms: ["HS256"] });
  } catch {
    return reply.code(401).send({ error: "unauthorized" });
  }
  const iat = Math.floor(Date.now() / 1000);
  const claims = { iss: ROLLOUT_CLIENT_ID, sub: user.sub, iat, exp: iat + 900 };
  const token = jwt.sign(claims, ROLLOUT_CLIENT_SECRET, { algorithm: "HS512" });
  return { token, expires_in: 900 };
});

fastify.listen({ port: Number(PORT), host: "127.0.0.1" });
