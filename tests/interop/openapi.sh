#!/usr/bin/env bash
# Tests the service against its own OpenAPI description: schemathesis generates requests from the description and checks
# every response against it, for a caller with a session and for one without.
set -euo pipefail
cd "$(dirname "$0")/../.."

binary=$PWD/target/debug/rollout-token
bin=$PWD/target/interop/venv/bin
work=$(mktemp -d)
passed=0 failed=0
cleanup() { kill "$server" 2>/dev/null || true; rm -rf "$work"; }

random() { head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n'; }
session_secret=$(random)
export ROLLOUT_CLIENT_ID=id
ROLLOUT_CLIENT_SECRET=$(random)
export ROLLOUT_CLIENT_SECRET
export ROLLOUT__SERVER__LISTEN=127.0.0.1:0 ROLLOUT__SERVER__ADMIN_LISTEN=127.0.0.1:0 ROLLOUT__SERVER__DOCS_ALIAS=true
export ROLLOUT__RATE_LIMIT__PER_MINUTE=0 ROLLOUT__SESSION__EXTRACTORS=jwt
export ROLLOUT__EXTRACTORS__JWT__SECRET=$session_secret ROLLOUT__EXTRACTORS__JWT__ALGORITHMS=HS256
export ROLLOUT__EXTRACTORS__JWT__ALLOW_ANY_AUDIENCE=true
"$binary" serve >"$work/log" 2>&1 &
server=$!
trap cleanup EXIT
for _ in $(seq 100); do
  address=$(sed -n 's/.*"listening","address":"\([^"]*\)".*/\1/p' "$work/log")
  [ -n "$address" ] && break
  sleep 0.1
done
[ -n "$address" ] || { echo "the service did not start:"; cat "$work/log"; exit 1; }

conforms() {
  local name=$1
  shift
  if (cd "$work" && "$bin/schemathesis" run "http://$address/openapi.json" --checks all --max-examples 50 --no-color "$@") \
    >"$work/out" 2>&1; then
    passed=$((passed + 1))
    echo "ok      schemathesis, $name"
  else
    failed=$((failed + 1))
    echo "FAILED  schemathesis, $name"
    cat "$work/out"
  fi
}
session=$("$bin/python" -c 'import jwt, sys, time; print(jwt.encode({"sub": "ann", "exp": int(time.time()) + 3600}, sys.argv[1], "HS256"))' "$session_secret")
conforms "signed in" -H "Authorization: Bearer $session"
conforms "no session"

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
