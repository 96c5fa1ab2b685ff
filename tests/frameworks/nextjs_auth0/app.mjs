// Runs the middleware of nextjs-auth0, which serves /auth/profile, with requests like those of Next.js. Instead of a
// sign-in at Auth0, the library's testing helper creates the session.
import { createServer } from "node:http";

import { generateSessionCookie } from "@auth0/nextjs-auth0/testing";
import { Auth0Client } from "@auth0/nextjs-auth0/server";
import { NextRequest } from "next/server.js";

const secret = process.env.SECRET_KEY;
const base = `http://127.0.0.1:${process.env.PORT}`;
const auth0 = new Auth0Client({ domain: "example.auth0.com", clientId: "client", clientSecret: "client-secret", secret, appBaseUrl: base });

const signIn = async () => {
  const now = Math.floor(Date.now() / 1000);
  const user = { sub: "auth0|ann", name: "Ann", note: process.env.APP_NOTE };
  const value = await generateSessionCookie(
    { user, tokenSet: { accessToken: "at", expiresAt: now + 3600 }, internal: { sid: "1", createdAt: now } },
    { secret },
  );
  // Splits a long cookie into chunks as the library does.
  const chunks = value.match(/.{1,3500}/g);
  return chunks.length > 1 ? chunks.map((chunk, number) => `__session__${number}=${chunk}; Path=/`) : [`__session=${value}; Path=/`];
};

createServer(async (incoming, outgoing) => {
  for await (const _ of incoming);
  if (incoming.url === "/login") return outgoing.writeHead(200, { "set-cookie": await signIn() }).end();
  if (incoming.url === "/logout") {
    const gone = ["__session", "__session__0", "__session__1", "__session__2"].map((name) => `${name}=; Path=/; Max-Age=0`);
    return outgoing.writeHead(200, { "set-cookie": gone }).end();
  }
  const headers = new Headers(Object.entries(incoming.headers).map(([name, value]) => [name, String(value)]));
  const answer = await auth0.middleware(new NextRequest(base + incoming.url, { method: incoming.method, headers }));
  outgoing.writeHead(answer.status, { ...Object.fromEntries(answer.headers), "set-cookie": answer.headers.getSetCookie() });
  outgoing.end(Buffer.from(await answer.arrayBuffer()));
}).listen(Number(process.env.PORT), "127.0.0.1");
