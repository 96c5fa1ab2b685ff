# shellcheck shell=bash
# Sourced by build.sh, docker.sh and run.sh: runs commands as root, and buildah with its own store below target/image/.

kept=$PWD/target/image
PATH=$PATH:/usr/sbin:/sbin

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

storage() {
  # buildah keeps the caches of RUN --mount=type=cache below TMPDIR.
  as_root env BUILDAH_ISOLATION=chroot TMPDIR="$kept/tmp" \
    buildah --root "$kept/storage" --runroot "$kept/run" --storage-driver vfs "$@"
}
