#!/bin/sh
# What `cmake --install` puts there, used from outside: the program runs, the library exports what
# the public headers declare and nothing else, the headers parse as C17 and as C++17, and a program
# builds and runs with it through find_package and through pkg-config.
# Usage: install.sh SOURCE BUILD CC CXX [CONFIG]; an empty CXX leaves C++ out, and says so.
# SPDX-License-Identifier: Apache-2.0
set -eu
source=$1
build=$2
cc=$3
cxx=$4
config=${5:-}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
prefix=$tmp/usr

fail() {
    printf 'install.sh: %s\n' "$*" >&2
    exit 1
}

# expect NAME FILE TEXT: FILE holds TEXT.
expect() {
    grep -qF -- "$3" "$2" || {
        cat "$2" >&2
        fail "$1: expected '$3' in the lines above"
    }
}

cmake --install "$build" --prefix "$prefix" ${config:+--config "$config"} >"$tmp/log" ||
    fail "cmake --install failed: $(tail -n 5 "$tmp/log")"
"$prefix/bin/mixrank" version >"$tmp/version" || fail "the installed program does not run"

library=$(find "$prefix" -name 'libmixrank.so.*.*.*')
[ -f "$library" ] || fail "no libmixrank.so.x.y.z was installed"
libdir=$(dirname "$library")
version=${library##*.so.}
expect version "$tmp/version" "$version"

# ---- symbols and soname -----------------------------------------------------------------------

nm -D --defined-only "$library" | awk '{ print $NF }' | sort >"$tmp/exported"
headers=$(cd "$prefix/include/mixrank" && find . -name '*.h' | sed 's|^\./||' | sort)
[ -n "$headers" ] || fail "no headers were installed"
for header in $headers; do
    cmp -s "$source/$header" "$prefix/include/mixrank/$header" || fail "$header is not the source's"
done
for header in $headers; do
    tr '\n' ' ' <"$source/$header" | grep -o 'MR_API [^(;]*mr_[a-z0-9_]*(' |
        sed 's/($//; s/.*[ *]//' || true
done | sort >"$tmp/declared"
[ -s "$tmp/declared" ] || fail "the public headers declare nothing"
if ! diff "$tmp/declared" "$tmp/exported" >"$tmp/diff"; then
    cat "$tmp/diff" >&2
    fail "declared in the public headers (<) and exported by the library (>) differ"
fi
if grep -v '^mr_' "$tmp/exported"; then
    fail "the symbols above do not begin with mr_"
fi
soname=$(objdump -p "$library" | awk '$1 == "SONAME" { print $2 }')
[ "$soname" = "libmixrank.so.${version%.*}" ] ||
    fail "the soname is '$soname', expected libmixrank.so.${version%.*}"
[ -e "$libdir/$soname" ] || fail "$soname is not beside $library"

# ---- headers ----------------------------------------------------------------------------------

warnings='-Wall -Wextra -Wpedantic -Werror -fsyntax-only'
for header in $headers; do
    printf '#include <%s>\nextern int consumer;\n' "$header" >"$tmp/one.c"
    # shellcheck disable=SC2086
    "$cc" -std=c17 $warnings -I "$prefix/include/mixrank" -x c "$tmp/one.c" ||
        fail "$header does not stand alone as C17"
    # shellcheck disable=SC2086
    [ -z "$cxx" ] ||
        "$cxx" -std=c++17 $warnings -I "$prefix/include/mixrank" -x c++ "$tmp/one.c" ||
        fail "$header does not parse as C++17"
done
[ -n "$cxx" ] || echo "no C++ compiler: the headers were not tried as C++17"

# ---- two programs -----------------------------------------------------------------------------

# try NAME PROGRAM: what consumer.c is to print.
try() {
    status=0
    LD_LIBRARY_PATH=$libdir "$2" "$tmp/nowhere" >"$tmp/said" 2>&1 || status=$?
    [ "$status" -eq 3 ] || {
        cat "$tmp/said" >&2
        fail "$1: exit status $status, expected 3"
    }
    expect "$1" "$tmp/said" "libmixrank $version"
    expect "$1" "$tmp/said" "store: memory"
    expect "$1" "$tmp/said" "NOT_FOUND: bundle '$tmp/nowhere': no bundle.json there"
}

# configure VERSION: find_package(mixrank VERSION).
configure() {
    rm -rf "$tmp/consumer"
    cmake -S "$source/tests/consumer" -B "$tmp/consumer" -DCMAKE_C_COMPILER="$cc" \
        -DCMAKE_PREFIX_PATH="$prefix" -DWANTED_VERSION="$1" >"$tmp/log" 2>&1
}
minor=${version%.*}
next=${minor%.*}.$((${minor#*.} + 1))
if configure "$next"; then
    fail "find_package(mixrank $next) took $version"
fi
configure "$minor" || fail "find_package(mixrank $minor): $(tail -n 20 "$tmp/log")"
cmake --build "$tmp/consumer" >"$tmp/log" 2>&1 || fail "find_package: $(tail -n 20 "$tmp/log")"
try find_package "$tmp/consumer/consumer"

pc=$libdir/pkgconfig
[ "$(PKG_CONFIG_PATH=$pc pkg-config --modversion mixrank)" = "$version" ] ||
    fail "pkg-config does not say $version"
flags=$(PKG_CONFIG_PATH=$pc pkg-config --cflags --libs mixrank)
# shellcheck disable=SC2086
"$cc" -std=c17 -o "$tmp/by-pkg-config" "$source/tests/consumer/consumer.c" $flags ||
    fail "pkg-config gave: $flags"
try pkg-config "$tmp/by-pkg-config"

# ---- paths ------------------------------------------------------------------------------------

# Debugging information names its sources wherever they lie; nothing else may.
strip -g "$library" "$prefix/bin/mixrank"
if grep -rlF -e "$source/" -e "$build/" "$prefix"; then
    fail "the files above name the folder that they were built in"
fi
echo "installed, and used in $(wc -l <"$tmp/exported") functions from outside"
