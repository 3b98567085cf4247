#!/bin/sh
# python.sh - runs a script with a Python that has the modules it needs, or says why not and exits
# with 77, which CTest counts as skipped.
#
#     python.sh "torch transformers" SCRIPT [ARGUMENT ...]
#
# MIXRANK_PYTHON names another Python than python3, such as the one of a virtual environment made
# from tests/data/requirements.txt. SPDX-License-Identifier: Apache-2.0
set -eu
python=${MIXRANK_PYTHON:-python3}
modules=$1
shift
if ! command -v "$python" >/dev/null; then
    echo "skipped: there is no $python"
    exit 77
fi
for module in $modules; do
    if ! reason=$("$python" -c "import $module" 2>&1); then
        echo "skipped: $python cannot import $module: $(echo "$reason" | tail -n 1)"
        exit 77
    fi
done
exec "$python" "$@"
