// hapi with the authentication scheme of @hapi/cookie.
import cookie from "@hapi/cookie";
import hapi from "@hapi/hapi";

const server = hapi.server({ host: "127.0.0.1", port: Number(process.env.PORT) });
await server.register(cookie);
server.auth.strategy("session", "cookie", {
  cookie: { password: process.env.SESSION_PASSWORD, isSecure: false, path: "/" }, // plain http on loopback
});
server.auth.default({ strategy: "session", mode: "try" });

server.route([
  {
    method: "POST",
    path: "/login",
    handler(request, h) {
      const { username, password } = request.payload;
      if (username !== process.env.APP_USER || password !== process.env.APP_PASSWORD) return h.response().code(403);
      request.cookieAuth.set({ id: "user-15" });
      return h.response().code(204);
    },
  },
  {
    method: "POST",
    path: "/logout",
    handler(request, h) {
      request.cookieAuth.clear();
      return h.response().code(204);
    },
  },
  {
    method: "GET",
    path: "/me",
    handler: (request, h) => (request.auth.isAuthenticated ? request.auth.credentials.id : h.response().code(401)),
  },
]);
await server.start();
