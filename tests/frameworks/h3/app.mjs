// h3 with its built-in sessions, which Nuxt uses too. It is version 1, or version 2 if APP_H3 is h3-v2.
import { createServer } from "node:http";

const h3 = await import(process.env.APP_H3 ?? "h3");
const isFirst = "createApp" in h3;
const config = {
  name: "nuxt-session",
  password: process.env.SESSION_PASSWORD,
  maxAge: 7 * 24 * 60 * 60,
  cookie: { secure: false }, // plain http on loopback
};

function answer(event, status, text = "") {
  if (isFirst) h3.setResponseStatus(event, status);
  else event.res.status = status;
  return text;
}

async function form(event) {
  return new URLSearchParams(isFirst ? await h3.readRawBody(event) : await event.req.text());
}

async function handle(event) {
  const session = await h3.useSession(event, config);
  const [method, path] = isFirst ? [event.method, event.path] : [event.req.method, event.url.pathname];
  switch (`${method} ${path}`) {
    case "POST /login": {
      const fields = await form(event);
      if (fields.get("username") !== process.env.APP_USER || fields.get("password") !== process.env.APP_PASSWORD) {
        return answer(event, 403);
      }
      await session.update({ user: { id: "user-13", note: "x".repeat(Number(process.env.APP_NOTE ?? 0)) } });
      return answer(event, 200, "ok");
    }
    case "POST /logout":
      await session.clear();
      return answer(event, 200, "ok");
    case "GET /me":
      return session.data.user ? answer(event, 200, session.data.user.id) : answer(event, 401);
    default:
      return answer(event, 404);
  }
}

let listener;
if (isFirst) {
  const app = h3.createApp();
  app.use(h3.eventHandler(handle));
  listener = h3.toNodeListener(app);
} else {
  const app = new h3.H3();
  app.all("/**", handle);
  listener = h3.toNodeHandler(app);
}
createServer(listener).listen(Number(process.env.PORT), "127.0.0.1");
