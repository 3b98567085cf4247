#!/bin/sh
# rss.sh - the most memory that `encode` and `rank` of 100 candidates have resident: weights and a
# bounded session, whatever the catalogue.
#
# MIXRANK_RSS_SHAPE=qwen3-0.6b measures a real shape (2.4 GB on disk); the default is small.
# SPDX-License-Identifier: Apache-2.0
. "$(dirname "$0")/lib.sh"

if [ -n "${SANITIZE:-}" ]; then
    echo "skipped: a sanitizer's own memory would be measured"
    exit 77
fi
shape=${MIXRANK_RSS_SHAPE:-tiny}
n_items=${MIXRANK_RSS_ITEMS:-2000}
b=$work/bundle
ok bundle untrained --shape "$shape" --item-tokens 1 "$b"
awk -v n="$n_items" 'BEGIN { for (i = 0; i < n; i++)
    printf "{\"id\":\"i%06d\",\"text\":\"thing %d of a shop with %d shelves\"}\n", i, i, i % 7 }' \
    >"$work/items.jsonl"

measure()
{
    last=$*
    status=0
    "$MAXRSS" "$work/rss" "$MIXRANK" "$@" >"$out" 2>"$err" || status=$?
    [ "$status" -eq 0 ] || fail "expected it to work"
    rss=$(($(cat "$work/rss") / 1024))
}

ok check -b "$b" --json
weights=$(json bundle.weights_mb | sed 's/\..*//')
session=$(json bundle.session_mb | sed 's/\..*//')

# What the program has without a model.
measure version
base=$rss
measure encode -b "$b" -s "$work/store" -i "$work/items.jsonl"
encode=$rss
head -n 100 "$work/items.jsonl" | sed 's/.*"id":"\([^"]*\)".*/\1/' >"$work/ids"
measure rank -b "$b" -s "$work/store" -q "a thing with shelves" -c - <"$work/ids"
out_has "100 of 100 candidates scored"
rank=$rss
echo "$shape: weights $weights MB, session $session MB; program $base MB, encode $encode MB, rank $rank MB"

# The ranking model is mapped by encode too, but not read; its session has four times the rows.
[ "$rank" -le $((weights + session + base + 64)) ] || fail "rank took $rank MB"
[ "$encode" -le $((weights + 4 * session + base + 64)) ] || fail "encode took $encode MB"
