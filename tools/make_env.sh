#!/bin/sh
# Makes .venv-NAME from tools/NAME-requirements.txt, if it is not there yet: the environment of a tool or a platform whose pins
# are not those of Fivefold.
#   sh tools/make_env.sh crate
# Where the first line of the requirements begins with "# lent", .venv lends its packages, so that Fivefold and the platform can
# be imported side by side; only what is listed, and what that needs, is the environment's own. "# lent, listed alone": what is
# listed is all that is fetched, for who wants a part of a package that needs less than the whole.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
name=${1:?"which environment? One of those of tools/*-requirements.txt"}
env="$root/.venv-$name"
wanted="$root/tools/$name-requirements.txt"
lender="$root/.venv/bin/python"
[ -f "$wanted" ] || { echo "make_env: there is no tools/$name-requirements.txt" >&2; exit 1; }

told() { sed -n -e '1{/^# lent/p;}' -e '/^#/!p' "$1"; } # what decides: packages, and whether others are lent
if [ -x "$env/bin/python" ] && [ -f "$env/requirements.txt" ] && [ "$(told "$wanted")" = "$(told "$env/requirements.txt")" ]; then
    exit 0
fi

echo "Making .venv-$name"
install="--quiet --no-compile --disable-pip-version-check --requirement $wanted"
case "$(sed -n 1p "$wanted")" in "# lent, listed alone"*) install="$install --no-deps" ;; esac
rm -rf "$env"
if [ "$(sed -n '1s/^# lent.*/lent/p' "$wanted")" = lent ]; then
    [ -x "$lender" ] || { echo "make_env: .venv lends its packages, and is not there. Make it first: make .venv/made-for-test" >&2; exit 1; }
    "$lender" -m venv "$env"
    own=$(sed -n 's/^\([A-Za-z0-9._-]*\)==.*/^\1==/p' "$wanted") # what is listed here may differ from what .venv has
    grep -v -i -e "${own:-^==}" "$root/constraints.txt" > "$env/constraints.txt" || true
    "$env/bin/pip" install $install --constraint "$env/constraints.txt"
    purelib='import sysconfig; print(sysconfig.get_path("purelib"))'
    echo "import site; site.addsitedir('$("$lender" -c "$purelib")')" > "$("$env/bin/python" -c "$purelib")/lent.pth"
else
    python=${PYTHON:-python3}
    [ -n "${PYTHON:-}" ] || [ ! -x "$lender" ] || python=$lender
    "$python" -m venv "$env"
    "$env/bin/pip" install $install
fi
cp "$wanted" "$env/requirements.txt" # last: an environment without it is made anew
