#!/bin/sh
# benchmarks/compare on lines whose ratios are known.
# Usage: compare.sh ROOT
# SPDX-License-Identifier: Apache-2.0
set -eu
compare=$1/benchmarks/compare
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
failures=0

fail() {
    printf '%s\n' "$*"
    failures=$((failures + 1))
}

# run STATUS ARGUMENTS: the exit status; what it says goes to $tmp/out.
run() {
    expected=$1
    shift
    status=0
    sh "$compare" "$@" >"$tmp/out" 2>&1 || status=$?
    [ "$status" -eq "$expected" ] || {
        cat "$tmp/out"
        fail "compare $*: exit status $status, expected $expected"
    }
}

# says LINE: blanks count as one, those at the end as none.
says() {
    tr -s ' ' <"$tmp/out" | sed 's/ $//' | grep -qxF -- "$1" || {
        cat "$tmp/out"
        fail "expected the line: $1"
    }
}

b='"version": "0.1.0", "commit": "c", "compiler": "GNU 12", "build": "Release"'
cat >"$tmp/old" <<END
{"bench": "a", "what": "x, \"y\"", $b, "threads": 1, "M": 8, "gflops": 10.0, "peak_gflops": 50, "ms": 4}
{"bench": "a", "what": "x, \"y\"", $b, "threads": 2, "M": 8, "gflops": 20.0, "ms": 2}
{"bench": "r", "what": "w", $b, "numerics": "scoring/avx2/F32/r1", "ms": 1e2, "p99_us": 30, "error": 1e-7}
{"bench": "r", "what": "w", $b, "numerics": "scoring/avx2/F32/r1", "ms": 300, "p99_us": 30, "error": 1e-7}
{"bench": "r", "what": "w", $b, "numerics": "scoring/avx2/F32/r1", "ms": 200, "p99_us": 31, "error": 1e-7}

{"bench": "gone", "what": "z", $b, "ms": 1}
END
# Another order, another revision, another commit: still the same lines.
sed 's/"commit": "c"/"commit": "d"/; s|/r1"|/r2"|; s/"gflops": 10.0/"gflops": 15.0/; /gone/d
    s/"ms": 300/"ms": 240/; s/"ms": 200/"ms": 260/; s/"ms": 1e2/"ms": 250/' "$tmp/old" |
    sort >"$tmp/new"
run 0 "$tmp/old" "$tmp/new"
says 'old: version 0.1.0, commit c, compiler GNU 12, build Release'
says 'new: version 0.1.0, commit d, compiler GNU 12, build Release'
says 'a x, \"y\" threads=1 M=8'
says ' gflops 10 15 1.500 better'
says ' ms 4 4 1.000'
says 'r w scoring/avx2/F32'
says ' ms 200 250 1.250 worse'
says ' p99_us 30 30 1.000'
says "only in $tmp/old: gone z"
says '6 measures, 1 better and 1 worse by more than 5 %'
grep -q 'error\|peak' "$tmp/out" && fail "a number that is no measure was compared"
run 1 -f "$tmp/old" "$tmp/new"
run 0 -f -t 30 "$tmp/old" "$tmp/new"
run 1 -f "$tmp/new" "$tmp/old"
says ' gflops 15 10 0.667 worse'
says ' ms 250 200 0.800 better'

sed 's/Release/Debug/' "$tmp/old" >"$tmp/debug"
run 0 "$tmp/debug" "$tmp/new"
says 'not a Release build: these figures say little'

printf '{"bench": "a", "ms": 1}\n12 passed\n' >"$tmp/broken"
run 2 "$tmp/old" "$tmp/broken"
says "compare: $tmp/broken:2 is not a JSON line"
printf '{"bench": "other", "ms": 1}\n' >"$tmp/other"
run 2 "$tmp/old" "$tmp/other"
says 'compare: no line of the one file belongs to a line of the other'
: >"$tmp/empty"
run 2 "$tmp/empty" "$tmp/old"
run 2 "$tmp/old" "$tmp/nowhere"
run 2 "$tmp/old"
run 2 -t much "$tmp/old" "$tmp/new"
[ "$failures" -eq 0 ] && echo "compare gives the ratios that it should"
