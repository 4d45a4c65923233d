#!/bin/sh
# Makes an environment in which nvflare and Fivefold can both be imported: nvflare of its own, the rest lent by .venv.
#   sh tools/make_flare_env.sh .venv-flare
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
env="$1"
lender="$root/.venv/bin/python"
wanted="$root/tools/flare-requirements.txt"
if [ -x "$env/bin/python" ] && cmp -s "$wanted" "$env/requirements.txt"; then
    exit 0
fi
rm -rf "$env"
"$lender" -m venv "$env"
site=$("$env/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
lent=$("$lender" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
"$env/bin/pip" install --quiet --disable-pip-version-check --constraint "$root/constraints.txt" --requirement "$wanted"
echo "import site; site.addsitedir('$lent')" > "$site/lent.pth"
cp "$wanted" "$env/requirements.txt"
