# Functions that install programs and libraries and announce each step. Scripts source this file from the root.
# Python and Node libraries are installed below target/, never system-wide. Each script lists what it needs.

missing=()
need() { command -v "$1" >/dev/null || missing+=("$2"); } # PROGRAM PACKAGE

apt_install() { # the packages that are missing
  ((${#missing[@]})) || return 0
  local sudo=()
  [ "$(id -u)" = 0 ] || sudo=(sudo)
  echo "Installing with apt-get: ${missing[*]}"
  "${sudo[@]}" apt-get update -qq
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null ||
    { echo "Install them by hand: apt-get install ${missing[*]}" >&2; exit 1; }
}

# Each set of libraries is installed only once for the same list.
fresh() { [ -e "$2" ] && cmp -s "$1" "$2"; }

pip_install() { # FROM INTO: the packages of FROM/requirements.txt into INTO/venv
  local from=$1 into=$2
  mkdir -p "$into"
  fresh "$from/requirements.txt" "$into/requirements.txt" && return
  echo "Installing with pip into $into/venv: $(grep -v '^#' "$from/requirements.txt" | tr '\n' ' ')"
  python3 -m venv "$into/venv"
  "$into/venv/bin/pip" install --quiet --disable-pip-version-check -r "$from/requirements.txt"
  cp "$from/requirements.txt" "$into/"
}

npm_ci() { # FROM INTO [OPTION…]: the packages of FROM/package.json into INTO
  local from=$1 into=$2
  shift 2
  mkdir -p "$into"
  fresh "$from/package-lock.json" "$into/package-lock.json" && return
  echo "Installing with npm into $into: the packages of $from/package.json"
  cp "$from/package.json" "$from/package-lock.json" "$into/"
  (cd "$into" && npm ci --silent --no-audit --no-fund --ignore-scripts "$@") ||
    { rm -f "$into/package-lock.json"; exit 1; }
}
