#!/usr/bin/env bash
# Installs what `make test` needs beside the Rust toolchain, and says so before it does.
# Libraries of Python and Node go below target/, never into the system.
set -euo pipefail
cd "$(dirname "$0")/.."

missing=()
need() { command -v "$1" >/dev/null || missing+=("$2"); }
need cc gcc
need curl curl
need node nodejs
need npm npm
need python3 python3
need redis-server redis-server
compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || missing+=(postgresql)
python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)

if ((${#missing[@]})); then
  sudo=()
  [ "$(id -u)" = 0 ] || sudo=(sudo)
  echo "Installing with apt-get: ${missing[*]}"
  "${sudo[@]}" apt-get update -qq
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null ||
    { echo "Install them by hand: apt-get install ${missing[*]}" >&2; exit 1; }
fi

# Each set of libraries is installed once for a given list.
fresh() { [ -e "$2" ] && cmp -s "$1" "$2"; }

mkdir -p target/interop
if ! fresh tests/interop/requirements.txt target/interop/requirements.txt; then
  echo "Installing with pip into target/interop/venv: $(grep -v '^#' tests/interop/requirements.txt | tr '\n' ' ')"
  python3 -m venv target/interop/venv
  target/interop/venv/bin/pip install --quiet --disable-pip-version-check -r tests/interop/requirements.txt
  cp tests/interop/requirements.txt target/interop/
fi
if ! fresh tests/interop/package-lock.json target/interop/package-lock.json; then
  echo "Installing with npm into target/interop: the packages of tests/interop/package.json"
  cp tests/interop/package.json target/interop/
  cp tests/interop/package-lock.json target/interop/package-lock.json.new
  (cd target/interop && mv package-lock.json.new package-lock.json && npm ci --silent --no-audit --no-fund --ignore-scripts) ||
    { rm -f target/interop/package-lock.json; exit 1; }
fi
