#!/bin/sh
# Once before `docker compose up`: writes the client id into .env and the secrets into files that git does not
# see. Takes ROLLOUT_CLIENT_ID and ROLLOUT_CLIENT_SECRET, or ROLLOUT_CLIENT_SECRET_FILE, from the environment, or asks.
set -eu
cd "$(dirname "$0")/../.."
secrets=examples/compose/secrets

random() { od -An -N48 -tx1 /dev/urandom | tr -d ' \n'; }
# The container's user must read the file, other users of this machine must not: the directory keeps them out.
write() { cat >"$secrets/$1" && chmod 644 "$secrets/$1"; }

id=${ROLLOUT_CLIENT_ID-}
secret=${ROLLOUT_CLIENT_SECRET-}
[ -n "$secret" ] || [ -z "${ROLLOUT_CLIENT_SECRET_FILE-}" ] || secret=$(cat "$ROLLOUT_CLIENT_SECRET_FILE")
if [ -z "$id$secret" ] && [ -t 0 ]; then
  printf 'Rollout client id (empty: a throwaway client, to see it work): '
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
  echo "A throwaway client: its tokens look right, but Rollout does not know it."
elif [ -z "$id" ] || [ -z "$secret" ]; then
  echo "setup.sh: client id and client secret belong together: set both, or neither" >&2
  exit 2
fi

mkdir -p "$secrets"
chmod 700 "$secrets"
printf %s "$secret" | write rollout_client_secret
[ -s "$secrets/demo_proxy_secret" ] || random | write demo_proxy_secret

# Other variables in .env stay as they are.
touch .env
rest=$(grep -v '^ROLLOUT_CLIENT_ID=' .env || true)
{ [ -z "$rest" ] || printf '%s\n' "$rest"; printf "ROLLOUT_CLIENT_ID='%s'\n" "$id"; } >.env
echo "Wrote .env and $secrets/. Now: docker compose up"
