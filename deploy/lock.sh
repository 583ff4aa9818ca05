#!/usr/bin/env bash
# Pins everything the image installs, with the hashes of every file that the index has for each version.
#
#   deploy/lock.sh             take in what pyproject.toml asks for now; what is pinned and still fits stays
#   deploy/lock.sh --upgrade   pin the newest versions that fit
#   deploy/lock.sh --check     change nothing; exit 1 and show the difference where the locks are not fresh
#
# requirements.lock holds the dependencies without extras, build.lock what builds our own wheel. Both are for
# the image's Python and any platform. uv makes them; where it is not installed, it is put into a temporary
# environment, for which python3 and a package index are needed. No index address gets into the files.
set -euo pipefail
cd "$(dirname "$0")/.."

python=3.13 # as in deploy/Dockerfile
case "${1:-}" in
  '') mode=() ;;
  --upgrade) mode=(--upgrade) ;;
  --check) mode=(check) ;;
  *)
    sed -n '2,11s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
uv=$(command -v uv || true)
if [ -z "$uv" ]; then
  python3 -m venv "$work/uv"
  "$work/uv/bin/pip" install -q --disable-pip-version-check uv
  uv=$work/uv/bin/uv
fi

python3 - >"$work/build.in" <<'PY'
import pathlib
import re

# tomllib is not in every Python that may stand here; this list is one line of plain strings
line = re.search(r'^requires = \[(.*)\]$', pathlib.Path("pyproject.toml").read_text(encoding="utf-8"), re.M)
print("\n".join(re.findall(r'"([^"]+)"', line[1])))
PY

# uv prefers the pins of the file that it is to write
compile() { # INPUT OUTPUT OPTION...
  local input=$1 output=$2
  shift 2
  "$uv" pip compile --quiet --universal --python-version "$python" --no-emit-index-url --no-header \
    "$input" --output-file "$output" "$@" >/dev/null
}

header() { printf '# Made by deploy/lock.sh from %s; do not edit.\n' "$1"; }

if [ "${mode[0]:-}" = check ]; then
  fresh=0
  for name in requirements build; do
    input=pyproject.toml
    [ $name = requirements ] || input=$work/build.in
    # versions and markers only: an index may get further files for a version at any time
    sed -nE 's/^([A-Za-z0-9][^\\]*[^\\ ]).*/\1/p' "deploy/$name.lock" >"$work/$name.now"
    cp "$work/$name.now" "$work/$name.next"
    compile "$input" "$work/$name.next" --no-annotate
    if ! diff -u --label "deploy/$name.lock" --label "what deploy/lock.sh would pin" "$work/$name.now" "$work/$name.next"; then
      fresh=1
    fi
  done
  [ $fresh = 0 ] && echo "deploy/*.lock: fresh"
  [ $fresh = 0 ] || echo "run deploy/lock.sh" >&2
  exit $fresh
fi

for name in requirements build; do
  input=pyproject.toml
  shown=pyproject.toml
  more=()
  if [ $name = build ]; then
    input=$work/build.in
    shown="pyproject.toml's build-system"
    more=(--no-annotate) # it would name a temporary file
  fi
  output=$work/$name.lock
  if [ -e "deploy/$name.lock" ]; then cp "deploy/$name.lock" "$output"; fi
  compile "$input" "$output" --generate-hashes "${more[@]+"${more[@]}"}" "${mode[@]+"${mode[@]}"}"
  { header "$shown" && cat "$output"; } >"deploy/$name.lock"
  echo "deploy/$name.lock: $(grep -c == "deploy/$name.lock") pinned"
done
