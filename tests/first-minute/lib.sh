# shellcheck shell=bash
# Sourced by the scripts in this folder. Each script follows a page of docs/start in a new folder, as a reader who
# pastes the page's code blocks would, and counts the steps. A step is a command or an edited file.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
work=$(mktemp -d)
started=() steps=()
cleanup() {
  for process in "${started[@]}"; do kill "$process" 2>/dev/null || true; done
  rm -rf "$work"
}
trap cleanup EXIT

# Free ports replace the ports on the page.
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
service=$(free_port)
app=$(free_port)
export ROLLOUT__SERVER__LISTEN=127.0.0.1:$service ROLLOUT__SERVER__ADMIN_LISTEN=127.0.0.1:0

# The binary, npx and uvx on `PATH` stand in for the installed npm and PyPI packages.
mkdir "$work/bin" "$work/app"
ln -s "$root/target/debug/rollout-token" "$work/bin/rollout-token"
for name in npx uvx; do
  printf '#!/bin/sh\nexec "$@"\n' >"$work/bin/$name"
  chmod +x "$work/bin/$name"
done
PATH=$work/bin:$PATH

# Prints the Nth code block of a language on a page.
block() { # PAGE LANGUAGE N
  python3 - "$root/docs/start/$1.md" "$2" "$3" "$service" <<'PYTHON'
import re, sys, textwrap
page, language, number, port = sys.argv[1:]
text = open(page).read()
blocks = [textwrap.dedent(body) for name, body in re.findall(r"(?ms)^ *```(\w+)[^\n]*\n(.*?)^ *```", text) if name == language]
print(blocks[int(number) - 1].replace("127.0.0.1:8080", f"127.0.0.1:{port}"), end="")
PYTHON
}
step() {
  steps+=("$1")
  echo "step ${#steps[@]}: $1"
}
wait_for() { # PORT LOG
  for _ in $(seq 200); do
    (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null && return
    sleep 0.1
  done
  cat "$2"
  return 1
}
# Signs in at /sign-in, and prints a request to the app in the form of a browser's "Copy as cURL".
copy_request() {
  curl -sS -o /dev/null -c "$work/cookies" "http://localhost:$app/sign-in"
  printf "curl 'http://localhost:%s/' -H 'Cookie: %s'\n" "$app" "$(awk '$7 { printf "%s%s=%s", s, $6, $7; s = "; " }' "$work/cookies")"
}
# Checks in Chromium that the app's own page shows a token for this user.
page_shows_token() { node "$root/tests/first-minute/page.mjs" "http://localhost:$app" "$1"; }
finish() {
  [ "${#steps[@]}" -le 4 ] || { echo "${#steps[@]} steps, but at most 4 are allowed"; exit 1; }
  echo "ok: ${#steps[@]} steps"
}
