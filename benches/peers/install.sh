#!/usr/bin/env bash
# Installs and builds what `make bench` compares the service with, and says so before it does.
# Libraries of Python and Node go below target/, never into the system.
set -euo pipefail
cd "$(dirname "$0")/../.."

missing=()
need() { command -v "$1" >/dev/null || missing+=("$2"); }
need wrk wrk
need taskset util-linux
need node nodejs
need npm npm
need go golang-go
need python3 python3
[ -e /usr/share/gocode/src/github.com/golang-jwt ] || missing+=(golang-github-golang-jwt-jwt-dev)
python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
if ((${#missing[@]})); then
  sudo=()
  [ "$(id -u)" = 0 ] || sudo=(sudo)
  echo "Installing with apt-get: ${missing[*]}"
  "${sudo[@]}" apt-get update -qq
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null ||
    { echo "Install them by hand: apt-get install ${missing[*]}" >&2; exit 1; }
fi

from=benches/peers into=target/peers
mkdir -p "$into"
if ! cmp -s "$from/requirements.txt" "$into/requirements.txt"; then
  echo "Installing with pip into $into/venv: $(grep -v '^#' "$from/requirements.txt" | tr '\n' ' ')"
  python3 -m venv "$into/venv"
  "$into/venv/bin/pip" install --quiet --disable-pip-version-check -r "$from/requirements.txt"
  cp "$from/requirements.txt" "$into/"
fi
if ! cmp -s "$from/package-lock.json" "$into/package-lock.json" || [ ! -e "$into/node_modules" ]; then
  echo "Installing with npm into $into: the packages of $from/package.json"
  cp "$from/package.json" "$from/package-lock.json" "$into/"
  (cd "$into" && npm ci --silent --no-audit --no-fund --ignore-scripts) || { rm -f "$into/package-lock.json"; exit 1; }
fi
# Node looks for packages beside the file that asks for them.
cp "$from"/*.js "$into/"
GO111MODULE=off GOPATH=/usr/share/gocode go build -o "$into/nethttp" "$from/nethttp.go"
cargo build --release --locked --bin rollout-token --example peer-hello --example peer-naive
