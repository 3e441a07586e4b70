#!/usr/bin/env bash
# Install what the tests compare berth with and build images by: only what is missing, and no service is started.
# Without root or apt it only says what is missing: the tests that need it are skipped with that reason.
set -euo pipefail

# command:package
wanted=(
  busybox:busybox-static docker:docker.io dockerd:docker.io podman:podman skopeo:skopeo umoci:umoci runc:runc
  docker-registry:docker-registry mmdebstrap:mmdebstrap nft:nftables ip:iproute2 zstd:zstd pgrep:procps
  iptables:iptables ufw:ufw firewalld:firewalld dbus-daemon:dbus newuidmap:uidmap apparmor_parser:apparmor
  qemu-system-x86_64:qemu-system-x86 mkfs.btrfs:btrfs-progs mkfs.xfs:xfsprogs gcc:gcc
  musl-gcc:musl-tools
)

PATH=$PATH:/usr/sbin:/sbin

missing=()
for pair in "${wanted[@]}"; do
  command -v "${pair%%:*}" >/dev/null || missing+=("${pair#*:}")
done
# The busybox of that name may be the dynamically linked one, which is no image by itself: it names its loader
# in the first page.
if command -v busybox >/dev/null && head -c 4096 "$(command -v busybox)" | grep -qa 'ld-linux\|ld-musl'; then
  missing+=(busybox-static)
fi
# From Debian 13 on it is a package of its own, no part of qemu's.
if ! compgen -G '/usr/lib*/qemu/virtiofsd' >/dev/null && ! [ -x /usr/libexec/virtiofsd ] &&
  apt-cache show virtiofsd >/dev/null 2>&1; then
  missing+=(virtiofsd)
fi
if [ ${#missing[@]} -eq 0 ]; then
  exit 0
fi
mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)

if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
  echo "test-packages: missing ${missing[*]} (root and apt would install them)" >&2
  exit 0
fi

policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
  trap 'rm -f $policy' EXIT
  printf '#!/bin/sh\nexit 101\n' >$policy
  chmod 755 $policy
fi

export DEBIAN_FRONTEND=noninteractive
for attempt in 1 2 3; do
  if apt-get -q update && apt-get -q install -y --no-install-recommends "${missing[@]}"; then
    # From Debian 13 on the client is a package of its own.
    command -v docker >/dev/null || apt-get -q install -y --no-install-recommends docker-cli
    exit 0
  fi
  echo "test-packages: attempt $attempt failed" >&2
done
exit 1
