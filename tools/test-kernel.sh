#!/usr/bin/env bash
# tools/test-kernel.sh FOLDER
# Put Debian's cloud kernel and its modules in FOLDER, for the tests in a virtual machine: unpacked, not installed.
set -euo pipefail

folder=$1
if compgen -G "$folder/boot/vmlinuz-*" >/dev/null; then
  exit 0
fi
if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
  echo "test-kernel: no apt to get a kernel with" >&2
  exit 0
fi

# The image itself, which the metapackage depends on.
image() {
  apt-cache depends linux-image-cloud-amd64 2>/dev/null | sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1
}

mkdir -p "$folder"
half=$(mktemp -d "$folder.half.XXXXXX")
trap 'rm -rf "$half"' EXIT
chmod 755 "$half"
for attempt in 1 2 3; do
  [ -n "$(image)" ] || apt-get -q update
  if (cd "$half" && apt-get -q -o APT::Sandbox::User=root download "$(image)"); then
    dpkg-deb -x "$half"/*.deb "$half/tree"
    rm -rf "$folder"
    mv "$half/tree" "$folder"
    exit 0
  fi
  echo "test-kernel: attempt $attempt failed" >&2
  apt-get -q update || true
done
exit 1
