#!/bin/sh
# Builds the static binary and puts it at the path given; what else is given are options for cargo. The same sources
# and compilers make the same bytes, whatever the folders are called. Called by the Dockerfile and deploy/release.sh.
set -eu
binary=$1
shift
cd "$(dirname "$0")/.."

# The explicit target keeps procedural macros, which run here, out of the static linking.
target=$(rustc --print host-tuple)
cargo fetch --locked --target "$target"

# The allocator's C says when it was compiled. A release gives the time of its commit.
export SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-0}"

# Folders of this machine would stand in the locations of panics, and in those of errors in C.
flags="-C target-feature=+crt-static" c_flags=""
map() {
  flags="$flags --remap-path-prefix=$1=$2"
  c_flags="$c_flags -ffile-prefix-map=$1=$2"
}
for sources in "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*; do map "$sources" /cargo; done
map "$PWD" /src

RUSTFLAGS=$flags CFLAGS=$c_flags CXXFLAGS=$c_flags \
  cargo build --release --locked --bin rollout-token --target "$target" "$@"
cp "target/$target/release/rollout-token" "$binary"
