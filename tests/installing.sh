# Functions that install programs and libraries and print each step. Scripts source this file from the repository's
# root. Python and Node libraries are installed below target/, never system-wide.

missing=()
need() { command -v "$1" >/dev/null || missing+=("$2"); } # PROGRAM PACKAGE

apt_install() { # installs the packages in `missing` with apt-get
  ((${#missing[@]})) || return 0
  local sudo=()
  [ "$(id -u)" = 0 ] || sudo=(sudo)
  echo "Installing with apt-get: ${missing[*]}"
  "${sudo[@]}" apt-get update -qq
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null ||
    { echo "Install the packages by hand: apt-get install ${missing[*]}" >&2; exit 1; }
}

# FILE COPY: succeeds if FILE has not changed since the last installation, which saved it as COPY
fresh() { [ -e "$2" ] && cmp -s "$1" "$2"; }

pip_install() { # FROM INTO: installs the packages of FROM/requirements.txt in INTO/venv
  local from=$1 into=$2
  mkdir -p "$into"
  fresh "$from/requirements.txt" "$into/requirements.txt" && return
  echo "Installing with pip into $into/venv: $(grep -v '^#' "$from/requirements.txt" | tr '\n' ' ')"
  python3 -m venv "$into/venv"
  "$into/venv/bin/pip" install --quiet --disable-pip-version-check -r "$from/requirements.txt"
  cp "$from/requirements.txt" "$into/"
}

npm_ci() { # FROM INTO [OPTION…]: installs the packages of FROM/package.json in INTO
  local from=$1 into=$2
  shift 2
  mkdir -p "$into"
  fresh "$from/package-lock.json" "$into/package-lock.json" && return
  echo "Installing with npm into $into: the packages of $from/package.json"
  cp "$from/package.json" "$from/package-lock.json" "$into/"
  (cd "$into" && npm ci --silent --no-audit --no-fund --ignore-scripts "$@") ||
    { rm -f "$into/package-lock.json"; exit 1; }
}
