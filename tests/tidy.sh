#!/bin/sh
# clang-tidy on the files that a build compiles, with .clang-tidy; any finding fails.
# Usage: tidy.sh BUILD [FILE ...]    FILE: part of a path; without one, all of ours
# SPDX-License-Identifier: Apache-2.0
set -eu
tidy=clang-tidy-14
build=$1
shift
command -v $tidy >/dev/null 2>&1 || {
    echo "$tidy is not installed (deploy/install-packages develop)" >&2
    exit 1
}
files=$(sed -n 's/^ *"file": "\(.*\)",\{0,1\}$/\1/p' "$build/compile_commands.json" |
    grep -vF "$build/" | sort -u)
[ $# -eq 0 ] || files=$(for part; do printf '%s\n' "$files" | grep -F -- "$part"; done | sort -u)
[ -n "$files" ] || {
    echo "no such file is compiled in $build" >&2
    exit 1
}
# Its count of warnings in system headers is no finding.
printf '%s\n' "$files" | tr '\n' '\0' |
    xargs -0 -n 4 -P "$(nproc)" $tidy -p "$build" --quiet --warnings-as-errors='*' 2>/dev/null
