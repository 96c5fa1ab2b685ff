#!/usr/bin/env bash
# `rollout-token dev` as a newcomer meets it: the curl line that it prints is run as printed, and the
# token is verified with the secret that it prints, by the libraries that Rollout's docs name.
set -euo pipefail
cd "$(dirname "$0")/../.."

binary=target/debug/rollout-token
work=$(mktemp -d)
passed=0 failed=0
cleanup() { kill "${servers[@]}" 2>/dev/null || true; rm -rf "$work"; }
servers=()
trap cleanup EXIT

check() {
  local name=$1
  shift
  if "$@" >"$work/out" 2>&1; then
    passed=$((passed + 1))
    echo "ok      $name"
  else
    failed=$((failed + 1))
    echo "FAILED  $name"
    cat "$work/out"
  fi
}

ROLLOUT__SERVER__LISTEN=127.0.0.1:0 ROLLOUT__SERVER__ADMIN_LISTEN=127.0.0.1:0 "$binary" dev >"$work/log" 2>&1 &
servers+=($!)
for _ in $(seq 100); do
  grep -q 'Secret' "$work/log" && break
  sleep 0.1
done
curl_line=$(sed -n 's/^  A token *//p' "$work/log")
secret=$(sed -n 's/^  Secret *\([^ ]*\).*/\1/p' "$work/log")
[ -n "$curl_line" ] && [ -n "$secret" ] || { echo "dev printed no curl line or no secret:"; cat "$work/log"; exit 1; }

python=target/interop/venv/bin/python
token_of() { "$python" -c 'import json,sys; print(json.load(sys.stdin)["token"])'; }
token=$(bash -c "$curl_line" | token_of)

check "PyJWT verifies the token of the printed curl line" "$python" tests/interop/verify.py "$token" "$secret" dev-client ann
check "jsonwebtoken verifies it" node tests/interop/verify.mjs "$PWD/target/interop" "$token" "$secret" dev-client ann

# Subjects that JSON writers disagree on.
for subject in 'user-1' 'Ünï-çødé-日本' '"quotes" \back\ </slash>' "$(printf 'x%.0s' $(seq 256))"; do
  minted=$(ROLLOUT_CLIENT_ID=id ROLLOUT_CLIENT_SECRET=$secret "$binary" mint -- "$subject")
  check "PyJWT: ${subject:0:30}" "$python" tests/interop/verify.py "$minted" "$secret" id "$subject"
  check "jsonwebtoken: ${subject:0:30}" node tests/interop/verify.mjs "$PWD/target/interop" "$minted" "$secret" id "$subject"
  check "inspect: ${subject:0:30}" env ROLLOUT_CLIENT_ID=id ROLLOUT_CLIENT_SECRET="$secret" "$binary" inspect "$minted"
done
wrong() { ! env ROLLOUT_CLIENT_ID=id ROLLOUT_CLIENT_SECRET="${secret}x" "$binary" inspect "$minted"; }
check "inspect refuses another secret" wrong

# The service as its own description promises it: schemathesis makes requests of the description and
# compares every answer with it, for a caller with a session and for one without.
session_secret=$(head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n')
export ROLLOUT_CLIENT_ID=id ROLLOUT_CLIENT_SECRET=$secret
export ROLLOUT__SERVER__LISTEN=127.0.0.1:0 ROLLOUT__SERVER__ADMIN_LISTEN=127.0.0.1:0 ROLLOUT__SERVER__DOCS_ALIAS=true
export ROLLOUT__RATE_LIMIT__PER_SUBJECT_PER_MINUTE=0 ROLLOUT__SESSION__EXTRACTORS=jwt
export ROLLOUT__EXTRACTORS__JWT__SECRET=$session_secret ROLLOUT__EXTRACTORS__JWT__ALGORITHMS=HS256
export ROLLOUT__EXTRACTORS__JWT__ALLOW_ANY_AUDIENCE=true
"$binary" serve >"$work/serve.log" 2>&1 &
servers+=($!)
for _ in $(seq 100); do
  address=$(sed -n 's/.*"listening","address":"\([^"]*\)".*/\1/p' "$work/serve.log")
  [ -n "$address" ] && break
  sleep 0.1
done
session=$("$python" -c 'import jwt, sys, time; print(jwt.encode({"sub": "ann", "exp": int(time.time()) + 3600}, sys.argv[1], "HS256"))' "$session_secret")
conforms() {
  (cd "$work" && "$OLDPWD/target/interop/venv/bin/schemathesis" run "http://$address/openapi.json" --checks all --max-examples 50 --no-color "$@")
}
check "schemathesis, signed in" conforms -H "Authorization: Bearer $session"
check "schemathesis, nobody" conforms

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
