#!/bin/sh
# Run this once before `docker compose up`. It writes the client id to .env and the secrets to files that git ignores.
# It reads the client id and secret from environment variables (ROLLOUT_CLIENT_ID, and ROLLOUT_CLIENT_SECRET or
# ROLLOUT_CLIENT_SECRET_FILE). If none of them is set, it prompts for both on a terminal, and uses a demo client id and
# secret if it has no terminal or the client id is left empty.
set -eu
cd "$(dirname "$0")/../.."
secrets=examples/compose/secrets

random() { od -An -N48 -tx1 /dev/urandom | tr -d ' \n'; }
# The container's user must be able to read the files. The directory's mode denies access to other users of this
# machine.
write() { cat >"$secrets/$1" && chmod 644 "$secrets/$1"; }

id=${ROLLOUT_CLIENT_ID-}
secret=${ROLLOUT_CLIENT_SECRET-}
[ -n "$secret" ] || [ -z "${ROLLOUT_CLIENT_SECRET_FILE-}" ] || secret=$(cat "$ROLLOUT_CLIENT_SECRET_FILE")
if [ -z "$id$secret" ] && [ -t 0 ]; then
  printf 'Rollout client id (leave it empty to use a demo client id and secret): '
  read -r id
  if [ -n "$id" ]; then
    printf 'Rollout client secret (not shown): '
    trap 'stty echo' EXIT
    stty -echo
    read -r secret
    stty echo
    echo
  fi
fi
if [ -z "$id$secret" ]; then
  id=demo-client secret=$(random)
  echo "Using a demo client id and secret: the tokens have the right form, but Rollout refuses them."
elif [ -z "$id" ] || [ -z "$secret" ]; then
  echo "setup.sh: set both the client id and the client secret, or neither" >&2
  exit 2
fi

mkdir -p "$secrets"
chmod 700 "$secrets"
printf %s "$secret" | write rollout_client_secret
[ -s "$secrets/demo_proxy_secret" ] || random | write demo_proxy_secret

# Keep the other variables in .env.
touch .env
rest=$(grep -v '^ROLLOUT_CLIENT_ID=' .env || true)
{ [ -z "$rest" ] || printf '%s\n' "$rest"; printf "ROLLOUT_CLIENT_ID='%s'\n" "$id"; } >.env
echo "Wrote .env and $secrets/. Next, run: docker compose up"
