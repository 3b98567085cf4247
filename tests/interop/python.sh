#!/bin/sh
# python.sh - runs a script with a Python that has the modules it needs, or says why not and exits
# with 77, which CTest counts as skipped.
#
#     python.sh "torch transformers" SCRIPT [ARGUMENT ...]
#
# Tried are python3 and the system's own, which has what Debian packages bring. MIXRANK_PYTHON names
# another one instead, such as that of a virtual environment made from tests/data/requirements.txt.
# SPDX-License-Identifier: Apache-2.0
set -eu
modules=$1
shift
why="there is no python3"
for python in ${MIXRANK_PYTHON:-python3 /usr/bin/python3}; do
    command -v "$python" >/dev/null || continue
    missing=
    for module in $modules; do
        if ! reason=$("$python" -c "import $module" 2>&1); then
            missing="$python cannot import $module: $(echo "$reason" | tail -n 1)"
            break
        fi
    done
    [ -n "$missing" ] || exec "$python" "$@"
    why=$missing
done
echo "skipped: $why"
exit 77
