#!/usr/bin/env bash
# tools/test-clients.sh FOLDER
# Put clients of Docker's API into FOLDER, for the tests that drive an engine with them: unpacked or in
# environments of their own, nothing is installed. What a machine cannot get is said, and its tests are skipped.
#
#   FOLDER/debian   docker-compose, the current one, whatever this Debian has
#   FOLDER/buildx   docker-buildx, likewise
#   FOLDER/criu     the current criu, which checkpoints and restores
#   FOLDER/python   testcontainers, aiodocker, and Ansible with its collection for Docker, for the interpreter PYTHON
#   FOLDER/node     dockerode and the CLI of Dev Containers
set -euo pipefail

folder=$1
python_packages=(testcontainers aiodocker ansible-core docker requests)
node_packages=(dockerode @devcontainers/cli)
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

# part NAME: make FOLDER/NAME by the function of that name, in a folder that is renamed when it is whole.
part() {
  local name=$1 half
  [ ! -d "$folder/$name" ] || return 0
  mkdir -p "$folder"
  half=$(mktemp -d "$folder/$name.half.XXXXXX")
  for attempt in 1 2; do
    if "$name" "$half" && mv "$half" "$folder/$name"; then
      return 0
    fi
    echo "test-clients: $name: attempt $attempt failed" >&2
  done
  rm -rf "$half"
}

# A Debian of one's choice, by a configuration of apt below the folder $1 that is of no concern to the machine's:
# afterwards "${apt[@]}" is its apt-get, and `suite $1 NAME` chooses it.
apt_below() {
  local to=$1
  command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null && [ -e $keyring ] || return 1
  mkdir -p "$to/apt/etc/preferences.d" "$to/apt/etc/apt.conf.d" "$to/apt/state/lists/partial" \
    "$to/apt/cache/archives/partial"
  : >"$to/apt/state/status"
  apt=(apt-get -q -o "Dir::Etc=$to/apt/etc" -o "Dir::State=$to/apt/state" -o "Dir::Cache=$to/apt/cache"
    -o "Dir::State::status=$to/apt/state/status" -o Acquire::Languages=none -o APT::Sandbox::User=root)
}

suite() {
  echo "deb [signed-by=$keyring] http://deb.debian.org/debian $2 main" >"$1/apt/etc/sources.list"
  "${apt[@]}" update >/dev/null
}

# plugin FOLDER NAME: a plugin of the docker CLI.
plugin() {
  local to=$1 name apt
  apt_below "$to" || return 1
  for name in sid trixie; do
    if suite "$to" $name && (cd "$to" && "${apt[@]}" download "$2") &&
      dpkg-deb -x "$to/$2"_*.deb "$to" &&
      "$to/usr/libexec/docker/cli-plugins/$2" version; then
      rm -rf "$to/apt" "$to"/*.deb
      return 0
    fi
    rm -rf "$to/usr" "$to"/*.deb
  done
  return 1
}

debian() {
  plugin "$1" docker-compose
}

buildx() {
  plugin "$1" docker-buildx
}

# The current criu with all libraries that it needs: an older one does not know newer kernels' vDSO.
criu() {
  local to=$1 apt packages
  apt_below "$to" && suite "$to" sid || return 1
  mapfile -t packages < <("${apt[@]}" install --no-install-recommends -s criu | awk '/^Inst / {print $2}')
  (cd "$to" && "${apt[@]}" download "${packages[@]}" >/dev/null) || return 1
  for package in "$to"/*.deb; do
    dpkg-deb -x "$package" "$to/root"
  done
  rm -rf "$to/apt" "$to"/*.deb
  mkdir "$to/bin"
  cat >"$to/bin/criu" <<'EOF'
#!/bin/sh
root=$(dirname "$0")/../root/usr
library=$root/lib/$(uname -m)-linux-gnu
exec "$library"/ld-linux-*.so.2 --library-path "$library" "$root/sbin/criu" "$@"
EOF
  chmod 755 "$to/bin/criu"
  "$to/bin/criu" --version
}

python() {
  local to=$1 interpreter=${PYTHON:-python3}
  # Made where it will be: an environment does not like to be moved.
  "$interpreter" -m venv "$folder/python-environment" &&
    "$folder/python-environment/bin/pip" -q install "${python_packages[@]}" &&
    "$folder/python-environment/bin/pip" -q download --no-deps -d "$to" ansible &&
    "$interpreter" - "$to" <<'EOF'
import pathlib, sys, zipfile

to = pathlib.Path(sys.argv[1])
wanted = ("community/docker/", "community/library_inventory_filtering_v1/")
for wheel in to.glob("ansible-*.whl"):
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.startswith(tuple(f"ansible_collections/{part}" for part in wanted)):
                archive.extract(name, to / "collections")
    wheel.unlink()
EOF
}

node() {
  command -v npm >/dev/null || return 1
  npm install --prefix "$1" --no-audit --no-fund --silent "${node_packages[@]}"
}

part debian
part buildx
part criu
part python
part node
