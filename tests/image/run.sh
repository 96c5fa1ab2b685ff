#!/usr/bin/env bash
# Tests the container image without a container engine (`make image-test`). build.sh builds the image, and this script
# runs its binary as an engine would: as process 1, with the image's user, command and environment variables, without
# capabilities, with a read-only root, in its own network namespace. Then compose.py tests docker-compose.yml.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/image/storage.sh

if [ "${1-}" != inside ]; then
  tests/image/build.sh
  # The test runs in its own mount and network namespaces, so the image's default ports are free and nothing is left
  # behind.
  as_root env PATH="$PATH" unshare --mount --net tests/image/run.sh inside
  exit
fi

ip link set lo up
work=$(mktemp -d)
passed=0 failed=0
container=$(storage from --pull=never localhost/rollout-token)
service='' idp=''
cleanup() {
  for process in $service $idp; do kill -KILL "$process" 2>/dev/null || true; done
  umount "$work/root" 2>/dev/null || true
  storage rm "$container" >/dev/null
  rm -rf "$work"
}
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
    sed 's/^/        /' "$work/out"
  fi
}
equal() { [ "$1" = "$2" ] || { printf 'want %s\ngot  %s\n' "$2" "$1"; false; }; }
at_most() { [ "$1" -le "$2" ] || { echo "$1 is more than $2"; false; }; }

# ---- Contents ---------------------------------------------------------------------------------

check "hadolint reports no problem in the Dockerfile" "$kept/venv/bin/hadolint" Dockerfile

storage inspect --type image localhost/rollout-token | jq .Docker.config >"$work/config.json"
config() { jq -c "$1" "$work/config.json"; }
check "the image sets the user as a number, 65534 (nobody)" equal "$(config .User)" '"65534:65534"'
check "the entrypoint is the binary" equal "$(config .Entrypoint)" '["/rollout-token"]'
check "the command is serve" equal "$(config .Cmd)" '["serve"]'
check "the health check runs the binary" equal "$(config .Healthcheck.Test)" '["CMD","/rollout-token","health"]'
check "the port is 8080" equal "$(config .ExposedPorts)" '{"8080/tcp":{}}'

image=$(storage mount "$container")
files=$(cd "$image" && find . ! -type d | sort | tr '\n' ' ')
check "the image contains only the binary and the CA certificates" equal "$files" "./etc/ssl/certs/ca-certificates.crt ./rollout-token "
static() { file "$1" | grep -E 'static-pie linked|statically linked'; }
check "the binary is static" static "$image/rollout-token"
size=$(stat -c %s "$image/rollout-token")
check "the binary is at most 12 MiB (it is $((size / 1024)) KiB)" at_most "$size" $((12 * 1024 * 1024))

# ---- Running it ----------------------------------------------------------------------------------

# Copy the image, and add resolv.conf, which an engine would mount, and the CA certificate of the test's identity
# provider.
mkdir "$work/root" "$work/idp"
cp -a "$image/." "$work/root"
python3 tests/image/idp.py "$work/idp" >"$work/idp/log" 2>&1 &
idp=$!
disown
for _ in $(seq 100); do grep -q listening "$work/idp/log" && break; sleep 0.1; done
echo "nameserver 127.0.0.1" >"$work/root/etc/resolv.conf"
cat "$work/idp/ca.pem" >>"$work/root/etc/ssl/certs/ca-certificates.crt"
mount --bind "$work/root" "$work/root"
mount -o remount,bind,ro "$work/root"

mapfile -t image_environment < <(jq -r '.Env[]' "$work/config.json")
mapfile -t serve < <(jq -r '(.Entrypoint + .Cmd)[]' "$work/config.json")
mapfile -t health < <(jq -r '.Healthcheck.Test[1:][]' "$work/config.json")
user=$(jq -r .User "$work/config.json")
secret=$(od -An -N48 -tx1 /dev/urandom | tr -d ' \n')
# The complete configuration as environment variables, as with `docker run --env`.
given=(
  ROLLOUT_CLIENT_ID=image-client
  ROLLOUT_CLIENT_SECRET="$secret"
  ROLLOUT__SESSION__EXTRACTORS='trusted_header,jwt'
  ROLLOUT__EXTRACTORS__TRUSTED_HEADER__HEADER=X-User
  ROLLOUT__EXTRACTORS__TRUSTED_HEADER__TRUSTED_PROXIES=127.0.0.1
  ROLLOUT__EXTRACTORS__JWT__JWKS_URL=https://idp.test:8443/keys
  ROLLOUT__EXTRACTORS__JWT__ISSUERS=https://idp.test
  ROLLOUT__EXTRACTORS__JWT__AUDIENCES=image
  ROLLOUT__SERVER__DRAIN_DELAY=0s
)
chroot=$(command -v chroot)
in_image() { env -i "${image_environment[@]}" "${given[@]}" "$chroot" --userspec="$user" --groups= "$work/root" "$@"; }
exit_code_is() { local want=$1; shift; local code=0; "$@" || code=$?; equal "$code" "$want"; }

check "the health check exits with code 1 before the service starts" exit_code_is 1 in_image "${health[@]}"
check "dev refuses to start in the container" exit_code_is 2 in_image "${serve[0]}" dev

setpriv --no-new-privs --inh-caps=-all unshare --pid --fork --kill-child \
  env -i "${image_environment[@]}" "${given[@]}" "$chroot" --userspec="$user" --groups= "$work/root" "${serve[@]}" \
  >"$work/log" 2>&1 &
unshared=$!
up() { for _ in $(seq 100); do in_image "${health[@]}" 2>/dev/null && return; sleep 0.1; done; cat "$work/log"; false; }
check "the health check exits with code 0 once the service runs" up
service=$(pgrep -P "$unshared")

status() { sed -n "s/^$1:\t*//p" "/proc/$service/status"; }
check "the process runs as user 65534" equal "$(status Uid)" "$(printf '65534\t65534\t65534\t65534')"
check "the process has no capabilities" equal "$(status CapEff)" 0000000000000000
check "the root file system is read-only" exit_code_is 1 touch "$work/root/file"

ask() { curl -sS --max-time 5 "$@"; }
ready() { for _ in $(seq 50); do ask -f -o /dev/null http://127.0.0.1:8080/readyz 2>/dev/null && return; sleep 0.1; done; cat "$work/log" "$work/idp/log"; false; }
check "the service resolves a host name and fetches keys over HTTPS" ready
ask -X POST -H 'X-User: ann' http://127.0.0.1:8080/rollout/token >"$work/answer.json" || true
token=$(jq -r '.token // empty' "$work/answer.json" || true)
check "a request with X-User gets a token" test -n "$token"
genuine() { in_image "${serve[0]}" inspect "$token" | grep '"sub": "ann"'; }
check "the token is signed with the client secret, and its subject is ann" genuine
refused() { equal "$(ask -o /dev/null -w '%{http_code}' -X POST http://127.0.0.1:8080/rollout/token)" 401; }
check "a request without a session gets 401" refused
for _ in $(seq 200); do ask -o /dev/null -X POST -H "X-User: user-$_" http://127.0.0.1:8080/rollout/token; done
memory=$(status VmRSS | tr -dc 0-9)
check "resident memory is at most 32 MiB (it is $memory KiB)" at_most "$memory" $((32 * 1024))

kill -TERM "$service"
service=''
check "process 1 exits with code 0 on SIGTERM" exit_code_is 0 wait "$unshared"
check "the health check exits with code 1 after the service has stopped" exit_code_is 1 in_image "${health[@]}"
no_secret() { ! grep -F -e "$secret" -e "${token:-no token}" "$work/log"; }
check "the log contains no secret and no token" no_secret

# ---- The service in docker-compose.yml -----------------------------------------------------------

check "docker-compose.yml works with this binary" "$kept/venv/bin/python" tests/image/compose.py "$image/rollout-token"

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
