#!/usr/bin/env bash
# Follows docs/start/express.md with an app that has connect-redis sessions in a real Redis.
. "$(dirname "$0")/lib.sh"

redis=$(free_port)
redis-server --port "$redis" --save '' --dir "$work" >"$work/redis.log" &
started+=($!)
wait_for "$redis" "$work/redis.log"

# Create the app, which a reader of the page already has.
cd "$work/app"
mkdir node_modules public
for package in "$root"/target/{frameworks,browser}/node_modules/*; do ln -sfn "$package" "node_modules/${package##*/}"; done
cat >app.mjs <<JS
import express from "express";
import session from "express-session";
import { RedisStore } from "connect-redis";
import { createClient } from "redis";

const app = express();
const client = createClient({ url: "redis://localhost:$redis" });
await client.connect();
app.use(session({ store: new RedisStore({ client }), secret: process.env.SESSION_SECRET, resave: false, saveUninitialized: false }));
app.get("/sign-in", (request, response) => {
  request.session.userId = "ann";
  response.send("signed in");
});
app.use(express.static("public"));
app.listen($app);
JS
export SESSION_SECRET=secret-of-the-first-minute-app
page() { printf '<!doctype html><title>App</title><p id="token"></p><script type="module">%s</script>' "$(block express js 2 | sed 's/console.log(\(.*\));/document.getElementById("token").textContent = \1;/')" >public/index.html; }
start_app() {
  node app.mjs >"$work/app.log" 2>&1 &
  started+=($!)
  wait_for "$app" "$work/app.log"
}
start_app

step "$(block express sh 1)" # counted as a step, but not run: the packages are already linked

step "$(block express sh 2)"
copy_request >request.txt
bash -euc "$(block express sh 2)"
# The test's Redis listens on a free port instead of 6379.
sed -i "s/localhost:6379/localhost:$redis/" rollout-token.toml

step "edit app.mjs"
kill "${started[-1]}"
wait "${started[-1]}" 2>/dev/null || true
{ block express js 1 | grep '^import'; sed "/^app.use(session/i $(block express js 1 | grep '^app.use')" app.mjs; } >edited && mv edited app.mjs
page
start_app

step "$(block express sh 3)"
bash -euc "$(block express sh 3 | sed 's/npx rollout-token/exec rollout-token/; s/^\(ROLLOUT[^ ]*\) exec/export \1; exec/')" >"$work/service.log" 2>&1 &
started+=($!)
wait_for "$service" "$work/service.log"

page_shows_token ann
finish
