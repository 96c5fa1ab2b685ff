#!/bin/sh
# Builds the static binary and copies it to the path in the first argument. The other arguments are options for cargo.
# The Dockerfile and deploy/release.sh call this script.
set -eu
binary=$1
shift
cd "$(dirname "$0")/.."
. deploy/static-env.sh
cargo build --release --locked --bin rollout-token --target "$target" "$@"
cp "target/$target/release/rollout-token" "$binary"
