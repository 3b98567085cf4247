#!/bin/sh
# Whether layers.sh sees what it should: each planted line must be named with its file and number,
# and a tree without one must pass.
# SPDX-License-Identifier: Apache-2.0
set -eu
check=$(dirname "$0")/layers.sh
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
failures=0

fresh_tree() {
    rm -rf "$root"/*
    mkdir -p "$root/core" "$root/engine" "$root/ranker/model" "$root/ranker/cli"
    printf '/* a */\n\n#include "core/b.h"\n#include <stdio.h>\n#include "mixrank_version.h"\n' \
        >"$root/core/a.c"
    printf '#include "core/b.h"\n#include "engine/x.h"\n' >"$root/engine/x.c"
    printf '#include "ranker/model/m.h"\n#include "engine/x.h"\n' >"$root/ranker/cli/main.c"
}

# expect_violation FILE TEXT EXPECTED-OUTPUT
expect_violation() {
    fresh_tree
    printf '%b' "$2" >"$root/$1"
    if out=$(sh "$check" "$root"); then
        echo "not caught in $1: $2"
        failures=$((failures + 1))
    elif ! printf '%s\n' "$out" | grep -qxF -- "$3"; then
        printf 'expected the line: %s\nfound: %s\n' "$3" "$out"
        failures=$((failures + 1))
    fi
}

fresh_tree
if ! out=$(sh "$check" "$root"); then
    printf 'a tree in order was refused: %s\n' "$out"
    failures=$((failures + 1))
fi
expect_violation engine/bad.c '/* one */\n\n\n#include "ranker/model/bundle.h"\n' \
    'engine/bad.c:4: engine may not include "ranker/model/bundle.h"'
expect_violation core/bad.h 'int a;\n  #  include <engine/x.h>\n' \
    'core/bad.h:2: core may not include "engine/x.h"'
expect_violation core/bad.c '#include "../engine/x.h"' \
    'core/bad.c:1: core may not include "../engine/x.h"'
expect_violation core/bad.inc '\n#include "b.h"\n' 'core/bad.inc:2: core may not include "b.h"'
expect_violation ranker/model/bad.c '#include "ranker/cli/main.h"\n' \
    'ranker/model/bad.c:1: ranker/model may not include "ranker/cli/main.h"'
expect_violation ranker/stray.c 'int a;\n' \
    'ranker/stray.c: belongs to no layer; add its folder to tests/layers.sh'

[ "$failures" -eq 0 ] && echo "layers.sh catches what it should"
