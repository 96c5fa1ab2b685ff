// Koa with koa-session; without a store, the session is in the cookie.
import Koa from "koa";
import { createSession } from "koa-session";

const app = new Koa();
app.keys = [process.env.SESSION_KEY];
app.use(createSession({}, app));

async function form(request) {
  const chunks = await request.toArray();
  return new URLSearchParams(Buffer.concat(chunks).toString());
}

app.use(async (context) => {
  switch (`${context.method} ${context.path}`) {
    case "POST /login": {
      const fields = await form(context.req);
      if (fields.get("username") !== process.env.APP_USER || fields.get("password") !== process.env.APP_PASSWORD) {
        return context.throw(403);
      }
      context.session.userId = "user-11";
      return (context.status = 204);
    }
    case "POST /logout":
      context.session = null;
      return (context.status = 204);
    case "GET /me":
      return context.session.userId ? (context.body = context.session.userId) : context.throw(401);
  }
});

app.listen(Number(process.env.PORT), "127.0.0.1");
