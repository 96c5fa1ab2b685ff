// React Router's cookie session storage with Node's HTTP server.
import { createServer } from "node:http";
import { createCookieSessionStorage } from "react-router";

const storage = createCookieSessionStorage({
  cookie: { name: "__session", secrets: [process.env.SESSION_SECRET], httpOnly: true, maxAge: 3600 },
});

async function form(request) {
  const chunks = await request.toArray();
  return new URLSearchParams(Buffer.concat(chunks).toString());
}

createServer(async (request, response) => {
  const session = await storage.getSession(request.headers.cookie);
  switch (`${request.method} ${request.url}`) {
    case "POST /login": {
      const fields = await form(request);
      if (fields.get("username") !== process.env.APP_USER || fields.get("password") !== process.env.APP_PASSWORD) {
        return response.writeHead(403).end();
      }
      session.set("userId", "user-17");
      return response.writeHead(204, { "Set-Cookie": await storage.commitSession(session) }).end();
    }
    case "POST /logout":
      return response.writeHead(204, { "Set-Cookie": await storage.destroySession(session) }).end();
    case "GET /me":
      return session.has("userId") ? response.end(session.get("userId")) : response.writeHead(401).end();
    default:
      return response.writeHead(404).end();
  }
}).listen(Number(process.env.PORT), "127.0.0.1");
