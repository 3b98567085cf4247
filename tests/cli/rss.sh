#!/bin/sh
# rss.sh - the most memory that `encode` and `rank` of 100 candidates have resident: weights and a
# bounded session, whatever the catalogue.
#
# MIXRANK_RSS_SHAPE=qwen3-0.6b MIXRANK_RSS_ITEMS=100 measures a real shape (2.4 GB on disk); the
# default is small.
# SPDX-License-Identifier: Apache-2.0
. "$(dirname "$0")/lib.sh"

if [ -n "${SANITIZE:-}" ]; then
    echo "skipped: a sanitizer's own memory would be measured"
    exit 77
fi
shape=${MIXRANK_RSS_SHAPE:-tiny}
n_items=${MIXRANK_RSS_ITEMS:-2000}
b=$work/bundle

# rss: the most that the program had resident, in MB.
measure()
{
    last=$*
    status=0
    "$MAXRSS" "$work/rss" "$MIXRANK" "$@" >"$out" 2>"$err" || status=$?
    [ "$status" -eq 0 ] || fail "exit $status, expected 0"
    rss=$(($(cat "$work/rss") / 1024))
}

# The first texts are as long as the encoder takes, so that its session is used in full. All rows
# have a long field that it does not read, so that whoever holds the catalogue in memory is seen.
long_items()
{
    make_items "$1" | awk '{ sub(/}$/, "")
        if (NR <= 16) {
            sub(/"$/, "")
            for (i = 0; i < 300; i++) $0 = $0 " word" i
            $0 = $0 "\""
        }
        printf "%s,\"blob\":\"", $0
        for (i = 0; i < 256; i++) printf "0123456789abcdef"; print "\"}" }'
}

it "encodes and ranks 100 candidates within weights + session + 64 MB"
ok bundle untrained --shape "$shape" --item-tokens 1 "$b"
ok check -b "$b" --json
weights=$(json bundle.weights_mb | sed 's/\..*//')
session=$(json bundle.session_mb | sed 's/\..*//')
long_items $((n_items / 10)) >"$work/few.jsonl"
long_items "$n_items" >"$work/many.jsonl"
measure encode -b "$b" -s "$work/few" -i "$work/few.jsonl"
few=$rss
measure encode -b "$b" -s "$work/store" -i "$work/many.jsonl" --json
encode=$rss
compare "$(json max_rss_mb)" "<=" $((rss + 1)) "what encode says of itself"
compare "$(json max_rss_mb)" ">=" $((rss - 4)) "what encode says of itself"
head -n 100 "$work/many.jsonl" | cut -d'"' -f4 >"$work/ids"
measure rank -b "$b" -s "$work/store" -q "a thing with shelves" -c - <"$work/ids"
out_has "100 of 100 candidates scored"
rank=$rss
echo "$shape: weights $weights MB, session $session MB; most resident: encode $encode MB of" \
    "$n_items items and $few MB of $((n_items / 10)), rank $rank MB"
[ "$rank" -le $((weights + session + 64)) ] || fail "rank took $rank MB"
[ "$encode" -le $((weights + session + 64)) ] || fail "encode took $encode MB"

[ "$n_items" -ge 2000 ] || exit 0 # a few batches touch only a part of the session
it "takes no more for ten times the catalogue than the pages of the store"
stored=$(($(wc -c <"$work/store/data.mdb") / 1048576))
size=$(($(wc -c <"$work/many.jsonl") / 1048576))
[ "$((encode - few))" -le $((stored + 4)) ] ||
    fail "$((encode - few)) MB more for $size MB of items in $stored MB of records"
