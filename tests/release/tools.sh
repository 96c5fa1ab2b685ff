#!/usr/bin/env bash
# Installs the programs that `make release` and `make release-test` need in addition to those that `make tools`
# installs, and prints each step.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/installing.sh

need buildah buildah
need debootstrap debootstrap
need file file
need fish fish
need jq jq
need npm npm
need python3 python3
need zsh zsh
[ -d /usr/share/ca-certificates/mozilla ] || missing+=(ca-certificates)
python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
apt_install
pip_install tests/deploy target/deploy
for tool in cargo-deb cargo-cyclonedx; do
  [ -x "target/tools/bin/$tool" ] || command -v "$tool" >/dev/null ||
    { echo "Installing with cargo into target/tools: $tool"; cargo install --quiet --locked --root target/tools "$tool"; }
done
