#!/bin/sh
# Makes an environment in which another platform and Fivefold can both be imported: the platform's packages are its own, the rest
# is lent by .venv.
#   sh tools/make_peer_env.sh flare      .venv-flare, from tools/flare-requirements.txt
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
env="$root/.venv-$1"
lender="$root/.venv/bin/python"
wanted="$root/tools/$1-requirements.txt"
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
