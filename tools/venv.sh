#!/usr/bin/env bash
# tools/venv.sh VENV PIP-ARGUMENT…
# Make the virtual environment VENV unless it is sound, and install into it.
# PYTHON chooses the interpreter; otherwise the first Python 3.11 or newer is taken.
set -euo pipefail

venv=$1
shift

recent() {
  "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

interpreter() {
  if [ -n "${PYTHON:-}" ]; then
    recent "$PYTHON" || { echo "venv: $PYTHON is not Python 3.11 or newer" >&2; return 1; }
    echo "$PYTHON"
    return
  fi
  local candidate
  for candidate in python3 python3.11 python3.12 python3.13 python3.14 \
    /usr/bin/python3 /usr/local/bin/python3 /opt/*/bin/python3; do
    if recent "$candidate"; then
      echo "$candidate"
      return
    fi
  done
  echo "venv: no Python 3.11 or newer found; set PYTHON=/path/to/python3" >&2
  return 1
}

has_pip() {
  "$1" -m pip --version >/dev/null 2>&1
}

python=$(interpreter)
if ! recent "$venv/bin/python"; then
  # Debian ships venv without ensurepip unless python3-venv is installed: then the outer pip serves.
  if ! "$python" -m venv --clear "$venv" >/dev/null 2>&1; then
    "$python" -m venv --clear --without-pip "$venv"
  fi
fi

if has_pip "$venv/bin/python"; then
  pip=("$venv/bin/python" -m pip)
elif has_pip "$python"; then
  pip=("$python" -m pip --python "$venv/bin/python")
else
  echo "venv: no pip for $python; install python3-venv or python3-pip" >&2
  exit 1
fi
"${pip[@]}" --disable-pip-version-check install --quiet --retries 10 "$@"
