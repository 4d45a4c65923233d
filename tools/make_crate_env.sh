#!/bin/sh
# Makes .venv-crate, the environment of rocrate-validator, if it is not there yet.
# It stands apart because the validator needs rich < 14, which Fivefold's other tools do not admit.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
env="$root/.venv-crate"
wanted="$root/tools/crate-requirements.txt"
python=${PYTHON:-python3}
if [ -x "$env/bin/rocrate-validator" ] && cmp -s "$wanted" "$env/requirements.txt"; then
    exit 0
fi
rm -rf "$env"
"$python" -m venv "$env"
"$env/bin/pip" install --quiet --disable-pip-version-check --requirement "$wanted"
cp "$wanted" "$env/requirements.txt"
