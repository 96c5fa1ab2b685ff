// Express with cookie-session; the user's id is in `passport.user`, where Passport stores it.
import cookieSession from "cookie-session";
import express from "express";

const app = express();
app.use(cookieSession({ keys: [process.env.SESSION_KEY] }));
app.use(express.urlencoded());

app.post("/login", (request, response) => {
  const { username, password } = request.body;
  if (username !== process.env.APP_USER || password !== process.env.APP_PASSWORD) return response.sendStatus(403);
  request.session.passport = { user: "user-7" };
  response.sendStatus(204);
});
app.post("/logout", (request, response) => {
  request.session = null;
  response.sendStatus(204);
});
app.get("/me", (request, response) => {
  const user = request.session.passport?.user;
  return user ? response.send(user) : response.sendStatus(401);
});

app.listen(Number(process.env.PORT), "127.0.0.1");
