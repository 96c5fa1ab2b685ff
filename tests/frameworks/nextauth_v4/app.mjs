// NextAuth v4 in Express. NextAuth needs only `cookies` and `query` of a Next.js request, which the app adds.
import express from "express";
import NextAuth from "next-auth";
import { getServerSession } from "next-auth/next";
import Credentials from "next-auth/providers/credentials";

const { APP_USER, APP_PASSWORD, PORT } = process.env;
process.env.NEXTAUTH_URL = `http://127.0.0.1:${PORT}`;

const options = {
  providers: [
    Credentials.default({
      credentials: { username: {}, password: { type: "password" } },
      authorize: ({ username, password }) =>
        username === APP_USER && password === APP_PASSWORD ? { id: "0c8e3b1e-user", name: "Ann" } : null,
    }),
  ],
  callbacks: {
    // NextAuth stores the user's id in the token's `sub`. This callback makes the id available to the app's own pages.
    session: ({ session, token }) => ({ ...session, user: { ...session.user, id: token.sub } }),
  },
};

const app = express();
app.use(express.urlencoded());
app.use((request, _, next) => {
  const pairs = (request.headers.cookie ?? "").split("; ").map((pair) => pair.split("="));
  request.cookies = Object.fromEntries(pairs.map(([name, ...value]) => [name, decodeURIComponent(value.join("="))]));
  next();
});
app.use("/api/auth", (request, response) => {
  const query = { ...request.query, nextauth: request.path.slice(1).split("/") };
  Object.defineProperty(request, "query", { value: query }); // Express 5 has only a getter
  return NextAuth.default(request, response, options);
});
app.get("/me", async (request, response) => {
  const session = await getServerSession(request, response, options);
  return session ? response.send(session.user.id) : response.sendStatus(401);
});

app.listen(Number(PORT), "127.0.0.1");
