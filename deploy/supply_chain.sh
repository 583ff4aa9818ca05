#!/usr/bin/env bash
# What the image is made of. Each installs requirements.lock into a temporary environment and looks at that.
#
#   deploy/supply_chain.sh sbom FILE     write a CycloneDX bill of materials (JSON)
#   deploy/supply_chain.sh licenses      write deploy/LICENSES.md anew
#   deploy/supply_chain.sh audit         look for known vulnerabilities: exit 1 where there are any, 3 where the
#                                        advisory service cannot be asked about all packages
#
# It needs Python 3.13 or newer as python3.13 or python3, and a package index.
set -euo pipefail
cd "$(dirname "$0")/.."

task=${1:-}
case "$task:$#" in
  sbom:2 | licenses:1 | audit:1) ;;
  *)
    sed -n '2,9s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python=python3
if python3.13 --version >/dev/null 2>&1; then python=python3.13; fi
"$python" -m venv "$work/tools"
"$python" -m venv --without-pip "$work/image"
pip() { "$work/tools/bin/pip" --disable-pip-version-check "$@"; }
install_lock() {
  pip --python "$work/image/bin/python" install -q --require-hashes --no-deps --only-binary :all: -r deploy/requirements.lock
}

case "$task" in
  sbom)
    pip install -q cyclonedx-bom
    install_lock
    "$work/tools/bin/cyclonedx-py" environment --pyproject pyproject.toml --output-reproducible --of JSON -o "$2" "$work/image/bin/python"
    echo "wrote $2: $(grep -c '"purl"' "$2") components"
    ;;
  licenses)
    pip install -q pip-licenses
    install_lock
    {
      echo "# Licences of what the image installs"
      echo
      echo "Written by \`deploy/supply_chain.sh licenses\` from \`requirements.lock\`."
      echo
      "$work/tools/bin/pip-licenses" --python "$work/image/bin/python" --with-system --no-version --from mixed --order name --format markdown
    } >deploy/LICENSES.md
    echo "wrote deploy/LICENSES.md"
    ;;
  audit)
    pip install -q pip-audit
    "$work/tools/bin/pip-audit" --progress-spinner off --require-hashes --disable-pip --format json --output "$work/audit.json" \
      -r deploy/requirements.lock 2>"$work/audit.log" || true
    if [ ! -s "$work/audit.json" ]; then
      tail -n 1 "$work/audit.log" >&2
      echo "not audited: the advisory service does not answer" >&2
      exit 3
    fi
    "$python" - "$work/audit.json" <<'PY'
import json
import sys

with open(sys.argv[1], encoding="utf-8") as file:
    packages = json.load(file)["dependencies"]
known = [(one["name"], one["version"], bug) for one in packages for bug in one.get("vulns", [])]
skipped = [one["name"] for one in packages if "skip_reason" in one]
for name, version, bug in known:
    print(f"{name} {version}: {bug['id']}, mended in {', '.join(bug['fix_versions']) or 'no version yet'}")
print(f"{len(packages) - len(skipped)} packages audited, {len(known)} known vulnerabilities, {len(skipped)} not audited")
sys.exit(1 if known else 3 if skipped else 0)
PY
    ;;
esac
