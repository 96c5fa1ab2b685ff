// Better Auth with e-mail and password sign-in, the cookie cache, and users in memory.
import { createServer } from "node:http";
import { betterAuth } from "better-auth";
import { memoryAdapter } from "better-auth/adapters/memory";
import { fromNodeHeaders, toNodeHandler } from "better-auth/node";

const auth = betterAuth({
  baseURL: `${process.env.APP_SCHEME ?? "http"}://127.0.0.1:${process.env.PORT}`,
  secret: process.env.BETTER_AUTH_SECRET,
  database: memoryAdapter({ user: [], session: [], account: [], verification: [] }),
  emailAndPassword: { enabled: true },
  session: { cookieCache: { enabled: true, maxAge: 5 * 60, strategy: process.env.APP_STRATEGY } },
});
const handle = toNodeHandler(auth);

createServer(async (request, response) => {
  if (request.url !== "/me") return handle(request, response);
  const session = await auth.api.getSession({ headers: fromNodeHeaders(request.headers) });
  return session ? response.end(session.user.id) : response.writeHead(401).end();
}).listen(Number(process.env.PORT), "127.0.0.1");
