#!/usr/bin/env bash
# Tests the image and the Compose demo in a real Docker engine (`make image-test`). If no engine is running, the script
# must run as root: it installs an engine (Debian's docker.io) and starts it with a store below target/image/docker.
# Replacements for the base images are imported, so that nothing is pulled.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/image/storage.sh

mkdir -p "$kept"
work=$(mktemp -d)
project=rollout-token-test
passed=0 failed=0 engine='' started=''
compose() { docker-compose --project-name "$project" --file "$work/project/docker-compose.yml" --project-directory "$work/project" "$@"; }
cleanup() {
  [ -z "$started" ] || compose down --volumes --timeout 5 >/dev/null 2>&1 || true
  if [ -n "$engine" ]; then kill "$engine" && wait "$engine" 2>/dev/null || true; fi
  as_root rm -rf "$work"
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
stop_if_failed() { [ "$failed" = 0 ] || { echo "$failed checks failed, and the remaining checks depend on them"; exit 1; }; }
equal() { [ "$1" = "$2" ] || { printf 'want %s\ngot  %s\n' "$2" "$1"; false; }; }

# ---- The engine ---------------------------------------------------------------------------------

missing=()
need() { command -v "$1" >/dev/null || missing+=("$2"); }
need debootstrap debootstrap
need docker-compose docker-compose
need jq jq
need node nodejs
docker info >/dev/null 2>&1 || need dockerd docker.io
if ((${#missing[@]})); then
  echo "Installing with apt-get: ${missing[*]}"
  as_root apt-get update -qq
  # RUNLEVEL=1 prevents apt-get from starting the packaged Docker service; this script starts its own engine.
  as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null ||
    { echo "Install the packages by hand: apt-get install ${missing[*]}" >&2; exit 1; }
fi
if ! docker info >/dev/null 2>&1; then
  [ "$(id -u)" = 0 ] || { echo "Start a Docker engine, or run this script as root" >&2; exit 1; }
  # Use the docker client of Debian's package, which also contains dockerd: another client may lack BuildKit.
  PATH=/usr/bin:$PATH
  export DOCKER_HOST=unix://$work/docker.sock
  dockerd --host "$DOCKER_HOST" --iptables=false --storage-driver overlay2 --data-root "$kept/docker" \
    --exec-root "$work/exec" --pidfile "$work/docker.pid" >"$work/engine.log" 2>&1 &
  engine=$!
  for _ in $(seq 100); do docker info >/dev/null 2>&1 && break; sleep 0.2; done
  docker info >/dev/null 2>&1 || { tail -n 20 "$work/engine.log"; exit 1; }
fi
echo "Docker $(docker version --format '{{.Server.Version}}')"

# ---- The replacements for the base images -------------------------------------------------------

base=$(sed -n 's/^FROM \(rust:[^ ]*\) AS build$/\1/p' Dockerfile)
app=$(sed -n 's/^ *image: \(node:.*\)$/\1/p' docker-compose.yml)
suite=${base##*-}
rootfs=$kept/$suite
if [ ! -d "$rootfs" ]; then
  echo "Installing Debian $suite with debootstrap in target/image/$suite"
  as_root rm -rf "$rootfs.part"
  as_root debootstrap --variant=minbase --include=ca-certificates,gcc,libc6-dev "$suite" "$rootfs.part" >"$work/log" 2>&1 ||
    { tail -n 20 "$work/log"; exit 1; }
  as_root umount "$rootfs.part/proc" 2>/dev/null || true
  as_root mv "$rootfs.part" "$rootfs"
fi
copy_of_rootfs() {
  as_root rm -rf "$work/image"
  as_root cp -a --one-file-system "$rootfs" "$work/image"
}
if ! docker image inspect "$base" >/dev/null 2>&1; then
  echo "Importing a replacement for $base: Debian $suite with $(rustc --version)"
  copy_of_rootfs
  as_root mkdir -p "$work/image/usr/local/rust" "$work/image/usr/local/cargo"
  as_root cp -a "$(rustc --print sysroot)"/{bin,lib} "$work/image/usr/local/rust"
  # Cargo in the container needs this machine's registry settings.
  as_root cp /etc/ssl/certs/ca-certificates.crt "$work/image/etc/ssl/certs/"
  for file in "${CARGO_HOME:-$HOME/.cargo}"/config{,.toml}; do
    [ ! -e "$file" ] || as_root cp "$file" "$work/image/usr/local/cargo/"
  done
  changes=(--change "ENV CARGO_HOME=/usr/local/cargo" --change "ENV PATH=/usr/local/rust/bin:/usr/sbin:/usr/bin:/sbin:/bin")
  while read -r variable; do changes+=(--change "ENV $variable"); done < <(env | grep -E '^CARGO_(HTTP|NET|REGISTRY|REGISTRIES|SOURCE)_' | grep -vE '^[A-Z0-9_]*(TOKEN|CREDENTIAL|CAINFO)' || true)
  as_root tar --create --directory "$work/image" . | docker import "${changes[@]}" - "$base" >/dev/null
fi
if ! docker image inspect "$app" >/dev/null 2>&1; then
  echo "Importing a replacement for $app: Debian $suite with Node $(node --version)"
  copy_of_rootfs
  node=$(readlink -f "$(command -v node)")
  as_root cp "$node" "$work/image/usr/bin/node"
  for library in $(ldd "$node" | sed -n 's/.* => \(\/[^ ]*\) .*/\1/p'); do as_root cp -L "$library" "$work/image/usr/lib/x86_64-linux-gnu/"; done
  as_root tar --create --directory "$work/image" . | docker import - "$app" >/dev/null
fi
as_root rm -rf "$work/image"

# ---- The image and the demo ---------------------------------------------------------------------

echo "Building the image"
git ls-files --cached --others --exclude-standard -z | tar --create --null --files-from - | (mkdir "$work/project" && tar --extract --directory "$work/project")
build() { DOCKER_BUILDKIT=1 docker build --network host --tag "${project}_rollout-token" --tag "$project-rollout-token" "$work/project"; }
check "BuildKit builds the unchanged Dockerfile" build
stop_if_failed

started=yes
check "setup.sh generates a throwaway client id and secret" env -u ROLLOUT_CLIENT_ID -u ROLLOUT_CLIENT_SECRET "$work/project/examples/compose/setup.sh"
# Use a free port, because another demo may be running on the default port.
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
sed -i "s/127.0.0.1:3000:3000/127.0.0.1:$port:3000/" "$work/project/docker-compose.yml"
check "docker compose up starts both services" compose up --detach --no-build
stop_if_failed

service=$(compose ps -q rollout-token)
state() { docker inspect --format "{{$1}}" "$service"; }
healthy() { for _ in $(seq 100); do [ "$(state .State.Health.Status)" = healthy ] && return; sleep 0.2; done; docker logs "$service"; false; }
check "the service is healthy" healthy
app_url=http://127.0.0.1:$port
ask() { curl -sS --max-time 10 "$@"; }
up() { for _ in $(seq 100); do ask -f -o /dev/null "$app_url/" 2>/dev/null && return; sleep 0.2; done; compose logs app; false; }
check "the app responds" up
status() { equal "$(ask -o "$work/answer.json" -w '%{http_code}' -X POST "$@" "$app_url/rollout/token")" "$want"; }
want=401 check "a request without a session gets 401" status
signs_in() { ask -o /dev/null -c "$work/cookies" -d user=ann "$app_url/sign-in"; }
check "the user signs in" signs_in
want=200 check "the signed-in user gets a token" status -b "$work/cookies"
subject() { equal "$(jq -r .token "$work/answer.json" | cut -d. -f2 | tr _- /+ | base64 -d 2>/dev/null | jq -r .sub)" ann; }
check "the token's subject is the signed-in user" subject

# ---- Memory limit of docker-compose.yml ----------------------------------------------------------------

address=$(docker inspect --format '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' "$service")
check "an attacker tries to open 3,000 connections with unfinished heads of 30 kB" \
  python3 tests/image/unfinished_heads.py "$address" 3000 30000
alive() { equal "$(state .State.OOMKilled) $(state .RestartCount) $(state .State.Running)" "false 0 true"; }
check "the container was neither killed by the memory limit nor restarted" alive
want=200 check "the signed-in user still gets a token" status -b "$work/cookies"

stops() { docker stop --time 30 "$service" && equal "$(state .State.ExitCode)" 0; }
check "the service exits with code 0 on docker stop" stops
no_secret() { ! docker logs "$service" 2>&1 | grep -F -f "$work/project/examples/compose/secrets/rollout_client_secret"; }
check "the log contains no secret" no_secret

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
