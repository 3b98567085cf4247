#!/bin/sh
# clang-format on our C files, with the one version whose output is ours.
# Usage: format.sh check|fix ROOT
# Files whose first line says that a program wrote them are left alone. Without clang-format-14 the
# check is skipped (77).
# SPDX-License-Identifier: Apache-2.0
set -eu
format=clang-format-14
case ${1:-} in
check) arguments='--dry-run -Werror' ;;
fix) arguments=-i ;;
*)
    echo "usage: format.sh check|fix ROOT" >&2
    exit 2
    ;;
esac
cd "$2"
if ! command -v $format >/dev/null 2>&1; then
    echo "skipped: $format is not installed (deploy/install-packages develop)"
    [ "$1" = check ] && exit 77
    exit 1
fi

files=
for folder in benchmarks cmake core deploy encoders engine featurestore ranker tests; do
    [ ! -d "$folder" ] || files="$files $(find "$folder" -type f \
        \( -name '*.[ch]' -o -name '*.inc' \) -exec awk '
        FNR == 1 && !/ - written by / { print FILENAME }' {} +)"
done
[ -n "$files" ] || {
    echo "format.sh: no source files in $2"
    exit 1
}
# shellcheck disable=SC2086
if $format $arguments $files; then
    [ "$1" = fix ] || echo "formatted as .clang-format says"
else
    echo "not formatted as .clang-format says; ninja -C build/dev format does it"
    exit 1
fi
