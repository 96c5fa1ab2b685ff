// Node's HTTP server with iron-session.
import { createServer } from "node:http";
import { getIronSession } from "iron-session";

const options = {
  cookieName: "app_session",
  password: process.env.SESSION_PASSWORD,
  cookieOptions: { secure: false }, // plain http on loopback
};

async function form(request) {
  const chunks = await request.toArray();
  return new URLSearchParams(Buffer.concat(chunks).toString());
}

createServer(async (request, response) => {
  const session = await getIronSession(request, response, options);
  switch (`${request.method} ${request.url}`) {
    case "POST /login": {
      const fields = await form(request);
      if (fields.get("username") !== process.env.APP_USER || fields.get("password") !== process.env.APP_PASSWORD) {
        return response.writeHead(403).end();
      }
      session.user = { id: "user-9", name: "Ann" };
      await session.save();
      return response.end("ok");
    }
    case "POST /logout":
      session.destroy();
      return response.end("ok");
    case "GET /me":
      return session.user ? response.end(session.user.id) : response.writeHead(401).end();
    default:
      return response.writeHead(404).end();
  }
}).listen(Number(process.env.PORT), "127.0.0.1");
