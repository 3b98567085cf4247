#!/bin/sh
# Whether hygiene.sh sees what it should: each planted fault must be named with its file and line,
# and a tree without one must pass.
# SPDX-License-Identifier: Apache-2.0
set -eu
check=$(dirname "$0")/hygiene.sh
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
failures=0
spdx='SPDX-License-Identifier: Apache-2.0'

fresh_tree() {
    rm -rf "${root:?}"/*
    mkdir -p "$root/core" "$root/docs" "$root/tests"
    # 100 characters in 152 bytes are 100 columns.
    umlauts=$(printf '\303\274%.0s' 1 2 3 4 5 6 7 8 9 10 11 12 13)
    printf '/* a.c - a. %s */\n/* %s%s%s%s%42s */\nint a;\n' "$spdx" \
        "$umlauts" "$umlauts" "$umlauts" "$umlauts" . >"$root/core/a.c"
    printf '#!/bin/sh\n# %s\n' "$spdx" >"$root/tests/run"
    printf '[b](docs/b.md), [part](docs/b.md#part), [host](https://example.org/x)\n' \
        >"$root/README.md"
    # shellcheck disable=SC2016
    printf '`[code](nowhere)`\n\n    [code](nowhere)\n\nhttps://example.org/home/x and a/work/b\n' \
        >"$root/docs/b.md"
}

# expect FILE TEXT LINE: with TEXT (a format of printf) in FILE, LINE is said.
expect() {
    fresh_tree
    # shellcheck disable=SC2059
    printf "$2" >"$root/$1"
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
expect core/b.c "/* $spdx */\\n\\tint b;\\n" 'core/b.c:2: a tab'
expect core/b.h "/* $spdx */\\nint b; \\n" 'core/b.h:2: blanks at the end of the line'
expect core/b.inc "/* $spdx */\\n$(printf '%101s' .)\\n" 'core/b.inc:2: 101 columns, at most 100'
expect core/b.c "/* $spdx */\\n$(printf '\\n%.0s' $(seq 1000))" \
    'core/b.c:1001: 1001 lines, at most 1000: split it by subject'
expect core/b.c 'int b;\n' 'core/b.c:1: no SPDX-License-Identifier in the first 60 lines'
expect tests/b.sh '# b\n' 'tests/b.sh:1: no SPDX-License-Identifier in the first 60 lines'
expect tests/b '#!/bin/sh\n' 'tests/b:1: no SPDX-License-Identifier in the first 60 lines'
expect docs/c.md 'see\n[c](../docs/d.md)\n' "docs/c.md:2: the link to '../docs/d.md' leads nowhere"
expect CONTRIBUTING.md '[a](core/a.c) [d](d#e)\n' \
    "CONTRIBUTING.md:1: the link to 'd#e' leads nowhere"
# In two halves, so that this file passes too.
expect docs/c.md "a\\nb /ho""me/someone/x\\n" 'docs/c.md:2: a path of one machine'
expect core/b.c "/* $spdx */\\nchar *b = \"/ro""ot/x\";\\n" 'core/b.c:2: a path of one machine'

fresh_tree
rm -r "$root/core" "$root/docs" "$root/tests"
if sh "$check" "$root" >/dev/null; then
    echo "an empty tree passed"
    failures=$((failures + 1))
fi
[ "$failures" -eq 0 ] && echo "hygiene.sh catches what it should"
