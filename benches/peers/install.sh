#!/usr/bin/env bash
# Installs and builds the servers for `make bench`, and announces each step. The functions are in tests/installing.sh.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/installing.sh

need wrk wrk
need taskset util-linux
need node nodejs
need npm npm
need go golang-go
need python3 python3
need redis-server redis-server
[ -x /usr/sbin/nginx ] || missing+=(nginx)
compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || missing+=(postgresql)
[ -e /usr/share/gocode/src/github.com/golang-jwt ] || missing+=(golang-github-golang-jwt-jwt-dev)
python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
apt_install

from=benches/peers into=target/peers
pip_install "$from" "$into"
npm_ci "$from" "$into"
# Node looks for packages next to the file that imports them.
cp "$from"/*.js "$into/"
GO111MODULE=off GOPATH=/usr/share/gocode go build -o "$into/nethttp" "$from/nethttp.go"
cargo build --release --locked --bin rollout-token --example peer-hello --example peer-naive
