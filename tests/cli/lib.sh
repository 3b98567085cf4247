# lib.sh - asserts for the tests of the command line, in POSIX shell. Sourced:
#
#     . "$(dirname "$0")/lib.sh"
#     it "refuses a bundle that is not there"
#     ok rank --help                  exits with 0
#     fails rank --bundle nowhere     exits with 1 and one line on standard error
#     misuse rank --qurey x           exits with 2 and nothing on standard output
#     out_has 'usage:'                standard output of the last call has this text
#     err_has "did you mean"          standard error likewise
#     json items.0.id                 prints what JSON output has at a path
#
# A failed assert shows what was expected and found and the test goes on; the script's exit status
# tells in the end. MIXRANK, JSONCHECK, TENSORS and MAXRSS are programs, DATA is tests/data; CTest
# sets them (tests/cli.cmake). $work is a folder that goes away at the end, and so do the processes
# in $children. SPDX-License-Identifier: Apache-2.0

set -eu
: "${MIXRANK:?} ${JSONCHECK:?} ${TENSORS:?} ${MAXRSS:?} ${DATA:?}"
work=$(mktemp -d "${TMPDIR:-/tmp}/mixrank-cli-XXXXXX")
out=$work/stdout
err=$work/stderr
failures=$work/failures # a line each: a variable would not survive $( )
children=
last=
status=0
case_name=${0##*/}
case_failures=0
cases=0
notice="untrained weights: the order means nothing"
: >"$failures"

count_failures()
{
    wc -l <"$failures" | tr -d ' '
}

end_case()
{
    [ "$cases" -eq 0 ] ||
        if [ "$(count_failures)" -eq "$case_failures" ]; then
            echo "ok      $case_name"
        else
            echo "FAILED  $case_name"
        fi
}

# Names what the asserts until the next `it` are about.
it()
{
    end_case
    case_name=$*
    case_failures=$(count_failures)
    cases=$((cases + 1))
}

finish()
{
    code=$?
    trap - EXIT
    for child in $children; do
        kill -9 "$child" 2>/dev/null || true
    done
    if [ "$code" -ne 0 ] && [ "$code" -ne 77 ]; then
        fail "the script itself stopped with status $code"
    fi
    end_case
    failed=$(count_failures)
    rm -rf "$work"
    if [ "$failed" -ne 0 ]; then
        echo "$failed asserts failed"
        exit 1
    fi
    exit "$code"
}
trap finish EXIT
trap 'exit 1' HUP INT TERM

# On standard error, for it may be called within $( ).
fail()
{
    {
        echo "FAILED: $case_name: $*"
        echo "after: mixrank $last (exit $status)"
        echo "--- standard output"
        head -c 3000 "$out" 2>/dev/null || true
        echo "--- standard error"
        head -c 3000 "$err" 2>/dev/null || true
        echo "---"
    } >&2
    echo "$case_name" >>"$failures"
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
    [ "$status" -eq 0 ] || fail "exit $status, expected 0"
}

# What talks beside the error is the notice about the weights.
fails()
{
    run "$@"
    [ "$status" -eq 1 ] || fail "exit $status, expected 1"
    lines=$(grep -vc "$notice" "$err" || true)
    [ "$lines" -eq 1 ] || fail "$lines lines on standard error, expected one"
}

misuse()
{
    run "$@"
    [ "$status" -eq 2 ] || fail "exit $status, expected 2"
    [ ! -s "$out" ] || fail "a misuse wrote to standard output"
}

# Results that cannot be written are a failure. Reads of /dev/full give zeros, writes ENOSPC.
disk_full()
{
    [ -c /dev/full ] || return 0
    last="$* >/dev/full"
    status=0
    : >"$out"
    "$MIXRANK" "$@" >/dev/full 2>"$err" || status=$?
    [ "$status" -eq 1 ] || fail "exit $status, expected 1"
    err_has "standard output"
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

err_lacks()
{
    ! grep -qF -e "$1" "$err" || fail "standard error has: $1"
}

# Nothing but what is asked for: no talk, not even a progress bar when nobody watches.
err_empty()
{
    [ ! -s "$err" ] || fail "standard error is not empty"
}

same()
{
    [ "$1" = "$2" ] || fail "got '$1', expected '$2'${3:+: $3}"
}

# compare VALUE < BOUND and so on, for numbers that the shell cannot hold.
compare()
{
    awk -v a="$1" -v b="$3" "BEGIN { exit !(a + 0 $2 b + 0) }" ||
        fail "$1 is not $2 $3${4:+: $4}"
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

# JSON lines of n items with ids i000000 on.
make_items()
{
    awk -v n="$1" 'BEGIN { for (i = 0; i < n; i++)
        printf "{\"id\":\"i%06d\",\"text\":\"thing %d of a shop with %d shelves\"}\n", i, i, i % 7 }'
}
