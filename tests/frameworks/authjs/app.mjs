// Express with Auth.js v5, the Credentials provider (user name and password), and the JWT session strategy, which this
// provider requires.
import { ExpressAuth, getSession } from "@auth/express";
import Credentials from "@auth/express/providers/credentials";
import express from "express";

const config = {
  trustHost: true,
  session: { strategy: "jwt" },
  providers: [
    Credentials({
      credentials: { username: {}, password: { type: "password" } },
      authorize: ({ username, password }) =>
        username === process.env.APP_USER && password === process.env.APP_PASSWORD
          ? { id: "0c8e3b1e-user", name: "Ann", email: "ann@example.com", image: process.env.APP_PICTURE }
          : null,
    }),
  ],
  callbacks: {
    // As in docs/recipes/nextauth.md, `userId` contains the id that the provider uses for the user, which is the same
    // at each sign-in.
    jwt({ token, account }) {
      if (account) token.userId = `${account.provider}:${account.providerAccountId}`;
      return token;
    },
    // Makes the user's id available to the app's own pages.
    session: ({ session, token }) => ({ ...session, user: { ...session.user, id: token.userId } }),
  },
};

const app = express();
app.set("trust proxy", true);
app.use("/auth", ExpressAuth(config));
app.get("/me", async (request, response) => {
  const session = await getSession(request, config);
  return session ? response.send(session.user.id) : response.sendStatus(401);
});

app.listen(Number(process.env.PORT), "127.0.0.1");
