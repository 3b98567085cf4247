# lib.sh - asserts for the tests of the command line, in POSIX shell. Sourced:
#
#     . "$(dirname "$0")/lib.sh"
#     ok rank --help                  exits with 0
#     fails rank --bundle nowhere     exits with 1 and one line on standard error
#     misuse rank --qurey x           exits with 2
#     out_has 'usage:'                standard output of the last call has this text
#     err_has "did you mean"          standard error likewise
#     json items.0.id                 prints what JSON output has at a path
#
# MIXRANK, JSONCHECK, TENSORS and MAXRSS are programs, DATA is tests/data; CTest sets them
# (tests/cli.cmake). $work is a folder that goes away at the end. SPDX-License-Identifier: Apache-2.0

set -eu
: "${MIXRANK:?} ${JSONCHECK:?} ${TENSORS:?} ${MAXRSS:?} ${DATA:?}"
work=$(mktemp -d "${TMPDIR:-/tmp}/mixrank-cli-XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
out=$work/stdout
err=$work/stderr
last=
status=0
notice="untrained weights: the order means nothing"

# On standard error, for it may be called within $( ).
fail()
{
    {
        echo "FAILED: $*"
        echo "after: mixrank $last (exit $status)"
        echo "--- standard output"
        head -c 3000 "$out" 2>/dev/null || true
        echo "--- standard error"
        head -c 3000 "$err" 2>/dev/null || true
    } >&2
    exit 1
}

# Runs mixrank with standard input as it is; sets status, out and err.
run()
{
    last=$*
    status=0
    "$MIXRANK" "$@" >"$out" 2>"$err" || status=$?
}

ok()
{
    run "$@"
    [ "$status" -eq 0 ] || fail "expected it to work"
}

# What talks beside the error is the notice about the weights.
fails()
{
    run "$@"
    [ "$status" -eq 1 ] || fail "expected exit 1"
    lines=$(grep -vc "$notice" "$err" || true)
    [ "$lines" -eq 1 ] || fail "expected one line on standard error, found $lines"
}

misuse()
{
    run "$@"
    [ "$status" -eq 2 ] || fail "expected exit 2"
    [ ! -s "$out" ] || fail "a misuse wrote to standard output"
}

out_has()
{
    grep -qF -e "$1" "$out" || fail "standard output lacks: $1"
}

out_lacks()
{
    ! grep -qF -e "$1" "$out" || fail "standard output has: $1"
}

err_has()
{
    grep -qF -e "$1" "$err" || fail "standard error lacks: $1"
}

same()
{
    [ "$1" = "$2" ] || fail "got '$1', expected '$2'${3:+: $3}"
}

# Standard output of the last call is one JSON value, or with `lines` an object on every line.
json_valid()
{
    "$JSONCHECK" "$@" <"$out" >/dev/null || fail "standard output is not JSON"
}

json()
{
    "$JSONCHECK" "$@" <"$out" || fail "nothing at: $*"
}
