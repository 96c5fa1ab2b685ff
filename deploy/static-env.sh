# Source this file at the root of the repository. It sets the environment in which cargo builds the static binary for
# `$target`. The same sources and compilers produce the same bytes in any folder.
# shellcheck shell=sh

# With an explicit target, cargo does not apply RUSTFLAGS to procedural macros, which cannot be linked statically.
target=$(rustc --print host-tuple)

# The allocator's C code embeds its compile time. deploy/release.sh sets this variable to the commit's time.
export SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-0}"

flags="-C target-feature=+crt-static" c_flags=""
# Replaces the folder $1 by $2 in panic locations in Rust and in file names in C, which would otherwise contain this
# machine's folder names.
map() {
  flags="$flags --remap-path-prefix=$1=$2"
  c_flags="$c_flags -ffile-prefix-map=$1=$2"
}
cargo fetch --locked --target "$target"
for sources in "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*; do map "$sources" /cargo; done
map "$PWD" /src
export RUSTFLAGS="$flags" CFLAGS="$c_flags" CXXFLAGS="$c_flags"
