#!/bin/sh
# Makes .venv-workflow, the environment of runcrate and cwltool, if it is not there yet.
# It stands apart because their pins are not those of Fivefold's other tools.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
env="$root/.venv-workflow"
wanted="$root/tools/workflow-requirements.txt"
python=${PYTHON:-python3}
if [ -x "$env/bin/cwltool" ] && cmp -s "$wanted" "$env/requirements.txt"; then
    exit 0
fi
rm -rf "$env"
"$python" -m venv "$env"
"$env/bin/pip" install --quiet --disable-pip-version-check --requirement "$wanted"
cp "$wanted" "$env/requirements.txt"
