#!/usr/bin/env bash
# Follows docs/start/nextjs.md with an app that has NextAuth JWT sessions.
. "$(dirname "$0")/lib.sh"

# Create the app, which a reader of the page already has. Its folder is below the installed packages, so that
# Next.js finds them.
folder=$root/target/browser/first-minute
rm -rf "$folder"
mkdir -p "$folder/app/api/auth/[...nextauth]" "$folder/app/sign-in"
cd "$folder"
export NEXTAUTH_SECRET=secret-of-the-first-minute-app-of-next NEXTAUTH_URL=http://localhost:$app NEXT_TELEMETRY_DISABLED=1
echo '{}' >package.json
cat >'app/api/auth/[...nextauth]/route.js' <<'JS'
import NextAuth from "next-auth";
import Credentials from "next-auth/providers/credentials";

const handler = NextAuth({
  providers: [Credentials({ credentials: {}, authorize: () => ({ id: "ann", name: "Ann" }) })],
});
export { handler as GET, handler as POST };
JS
cat >app/layout.js <<'JS'
export default ({ children }) => <html><body>{children}</body></html>;
JS
cat >app/sign-in/page.js <<'JS'
"use client";
import { useEffect, useState } from "react";
import { signIn } from "next-auth/react";

export default function SignIn() {
  const [text, setText] = useState("");
  useEffect(() => void signIn("credentials", { redirect: false }).then(() => setText("signed in")), []);
  return <p>{text}</p>;
}
JS

step "$(block nextjs sh 1)"
rm -rf ../node_modules/rollout-token
cp -r "$root/web" ../node_modules/rollout-token

step "edit next.config.mjs"
block nextjs js 1 >next.config.mjs

step "edit app/page.js"
block nextjs jsx 1 >app/page.js

step "start the service"
bash -euc "$(block nextjs sh 2 | sed 's/^npx rollout-token/exec rollout-token/')" >"$work/service.log" 2>&1 &
started+=($!)
wait_for "$service" "$work/service.log"
# Start the app. This is not a step, because the reader's app is already running.
node ../node_modules/next/dist/bin/next dev --port "$app" >"$work/app.log" 2>&1 &
started+=($!)
wait_for "$app" "$work/app.log"

page_shows_token ann
finish
