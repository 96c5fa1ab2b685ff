#!/usr/bin/env bash
# Builds the release artefacts in target/dist: the static binary, the archive with its shell completions, the Debian
# package, the npm packages, the Python wheel, the container image as an OCI archive, the SBOM and the checksums. `make
# release` runs this script, and docs/deploy/releasing.md describes the release. Building the image needs root or sudo.
# With the argument `deb` the script builds only the binary, the completions and the Debian package. With `packages` it
# builds only the binary and the npm and PyPI packages, which also works on macOS.
set -euo pipefail
cd "$(dirname "$0")/.."

PATH=$PWD/target/tools/bin:$PWD/target/deploy/venv/bin:$PATH:/usr/sbin:/sbin
need() { command -v "$1" >/dev/null || { echo "Install $1: $2" >&2; exit 1; }; }
part=${1-all}
tools="make release-tools"
[ "$part" = packages ] || need cargo-deb "$tools"
if [ "$part" = all ]; then
  need cargo-cyclonedx "$tools"
  need buildah "$tools"
  [ -d /usr/share/ca-certificates/mozilla ] || { echo "Install the CA certificates: apt-get install ca-certificates" >&2; exit 1; }
fi
if [ "$part" != deb ]; then
  need npm "$tools"
  need maturin "$tools"
fi

version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
machine=$(uname -m)
dist=$PWD/target/dist
# All timestamps are the commit's time instead of the current time, so that the build is reproducible.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH
rm -rf "$dist"
mkdir -p "$dist"
work=$(mktemp -d)
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }
trap 'as_root rm -rf "$work"' EXIT

echo "The binary"
binary=$dist/rollout-token-$version-$(uname -s | tr '[:upper:]' '[:lower:]')-$machine
deploy/build-static.sh "$binary"

if [ "$part" != deb ]; then
  echo "The npm packages"
  node packaging/npm/pack.mjs "$binary" "$dist"

  echo "The Python wheel"
  # maturin only packages the binary, because cargo has already built it.
  (. deploy/static-env.sh && cd packaging/pypi && maturin build --quiet --release --target "$target" --out "$dist")
  [ "$part" != packages ] || exit 0
fi

echo "The shell completions"
completions=$PWD/target/completions
mkdir -p "$completions"
# Each shell finds its completion script by the script's file name.
"$binary" completions bash >"$completions/rollout-token.bash"
"$binary" completions zsh >"$completions/_rollout-token"
"$binary" completions fish >"$completions/rollout-token.fish"

echo "The Debian package"
cargo deb --quiet --no-build --no-strip --target "$(rustc --print host-tuple)" --output "$dist/"
[ "$part" != deb ] || exit 0

echo "The archive"
folder=rollout-token-$version-linux-$machine
mkdir "$work/$folder"
cp -r "$completions" "$work/$folder"
cp "$binary" "$work/$folder/rollout-token"
cp LICENSE-MIT LICENSE-APACHE CHANGELOG.md config/default.toml "$work/$folder"
tar --create --directory "$work" --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX "$folder" |
  gzip --no-name >"$dist/$folder.tar.gz"

# The image is built from the last stage of the Dockerfile, with the binary from above and Mozilla's CA certificates
# from Debian's package, without other certificates that this machine trusts.
echo "The image"
sed -n '/^FROM scratch$/,$p' Dockerfile | sed 's/ --from=build / /' >"$work/Dockerfile"
mkdir -p "$work/etc/ssl/certs"
cat /usr/share/ca-certificates/mozilla/*.crt >"$work/etc/ssl/certs/ca-certificates.crt"
cp "$binary" "$work/rollout-token"
chmod 755 "$work" "$work/rollout-token"
image() { as_root env BUILDAH_ISOLATION=chroot buildah --root "$work/storage" --runroot "$work/run" --storage-driver vfs "$@"; }
image bud --quiet --format oci --timestamp "$SOURCE_DATE_EPOCH" --tag "localhost/rollout-token:$version" "$work" >"$work/log" 2>&1 ||
  { cat "$work/log"; exit 1; }
archive=$dist/rollout-token-$version-$machine.oci.tar
image push --quiet "localhost/rollout-token:$version" "oci:$work/oci:$version"
# The archive is created with tar, because an archive from buildah contains the current time.
as_root chown -R "$(id -u):$(id -g)" "$work/oci"
tar --create --file "$archive" --directory "$work/oci" --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX .

echo "The SBOM"
make --no-print-directory sbom
# The SBOM's internal references contain this folder's path, so replace it.
sed "s#path+file://$PWD#path+file:///src#g" target/rollout-token.cdx.json >"$dist/rollout-token-$version.cdx.json"

(cd "$dist" && sha256sum -- * >"$work/SHA256SUMS" && cp "$work/SHA256SUMS" .)
echo "In target/dist:"
ls -l "$dist" | awk 'NR > 1 { print "  " $5 "\t" $9 }' | expand -t 14
