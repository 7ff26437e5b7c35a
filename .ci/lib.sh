# What the scripts share; to be sourced by bash.

say() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
[[ -t 1 ]] || say() { printf '\n== %s\n' "$*"; }

# A virtual environment with exactly these packages. The list is stored last: a half-made
# environment is made again.
python_venv() { # directory, packages…
  local venv=$1
  shift
  if [[ ! -x $venv/bin/python || "$(cat "$venv/packages" 2>/dev/null)" != "$*" ]]; then
    python3 -m venv --clear "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@"
    echo "$*" >"$venv/packages"
  fi
}

free_port() {
  python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# Processes that belong to a script, and end with it.
started=()

start() { # log, command…
  local log=$1
  shift
  "$@" >"$log" 2>&1 </dev/null &
  started+=($!)
}

stop_all() {
  local pid
  for pid in "${started[@]}"; do
    kill "$pid" 2>/dev/null || true
  done
  for pid in "${started[@]}"; do
    wait "$pid" 2>/dev/null || true
  done
  started=()
}
trap stop_all EXIT

wait_until() { # what, command…: at most 30 seconds
  local what=$1 attempt
  shift
  for ((attempt = 0; attempt < 300; attempt++)); do
    if "$@" >/dev/null 2>&1; then return 0; fi
    sleep 0.1
  done
  echo "gave up waiting until $what" >&2
  return 1
}

# Requests that must succeed; Python, since curl may not be there.
put() { request PUT "$@"; }
post() { request POST "$@"; }

request() { # method, url, JSON
  python3 - "$@" <<'PYTHON'
import sys, urllib.error, urllib.request
method, url, body = sys.argv[1:]
request = urllib.request.Request(url, body.encode(), {"Content-Type": "application/json"}, method=method)
try:
    urllib.request.urlopen(request, timeout=10).read()
except urllib.error.HTTPError as error:
    sys.exit(f"{method} {url}: {error.code} {error.read().decode()}")
PYTHON
}

# Makes sure that a command is there.
ensure() { # command, package
  command -v "$1" >/dev/null || install_packages "$2"
  command -v "$1" >/dev/null || { echo "there is still no $1" >&2; return 1; }
}

as_root() {
  if [[ $(id -u) -eq 0 ]]; then "$@"; else sudo "$@"; fi
}

install_packages() { # names of Debian packages; others are told apart here
  local package packages=()
  echo "installing $*"
  if command -v apt-get >/dev/null; then
    for package; do
      [[ $package == redis ]] && package=redis-server
      packages+=("$package")
    done
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}"
    return
  fi
  for package; do
    case $package in
      redis-tools) package=redis ;;       # one package elsewhere
      python3-venv) package=python3 ;;    # part of Python elsewhere
    esac
    packages+=("$package")
  done
  if command -v dnf >/dev/null; then
    as_root dnf install -y -q "${packages[@]}"
  elif command -v apk >/dev/null; then
    as_root apk add --no-progress "${packages[@]}"
  elif command -v brew >/dev/null; then
    brew install "${packages[@]}"
  else
    echo "install these by hand: ${packages[*]}" >&2
    return 1
  fi
}
