#!/bin/sh
# rank.sh - from a catalogue to ranked lists: table, JSON, TREC run; users, requests, fallbacks.
# SPDX-License-Identifier: Apache-2.0
. "$(dirname "$0")/lib.sh"

items=$DATA/fixture/items.jsonl
users=$DATA/fixture/users.jsonl
queries=$DATA/fixture/queries.jsonl
n_items=$(wc -l <"$items" | tr -d ' ')
n_queries=$(wc -l <"$queries" | tr -d ' ')
b=$work/bundle
s=$work/store
ok bundle untrained --item-tokens 2 --seed 3 "$b"
ok encode -b "$b" -s "$s" -i "$items" -u "$users"

# ---- one query ----

ok rank -b "$b" -s "$s" -i "$items" -q "quiet keyboard" -k 3
out_has "place  score       margin  source  item"
out_has "$n_items of $n_items candidates scored"
out_has "$notice"
err_has "$notice"
same "$(grep -c ' model ' "$out")" 3
out_lacks degraded

ok rank -b "$b" -s "$s" -q "quiet keyboard" -k 0 --json
json_valid
same "$(json notice)" "$notice"
same "$(json 'items.*.id' | wc -l | tr -d ' ')" "$n_items"
same "$(json 'items.*.id' | sort -u | wc -l | tr -d ' ')" "$n_items"
same "$(json 'items.*.margin')" "$(json 'items.*.margin' | sort -g -r)" "best first"
same "$(json degraded)" "[]"
cp "$out" "$work/all.json"
all=$(json items)

# The same bits again, with one and with two threads.
for threads in 1 2; do
    ok rank -b "$b" -s "$s" -q "quiet keyboard" -k 0 --json -t $threads
    same "$(json items)" "$all" "$threads threads"
done

# A candidate has the margin that it has among all.
margin()
{
    "$JSONCHECK" 'items.*' <"$1" | grep -F "\"id\":\"$2\"" | sed 's/.*"margin":\([^,]*\),.*/\1/'
}
ok rank -b "$b" -s "$s" -q "quiet keyboard" -c mouse-left --json
same "$(margin "$out" mouse-left)" "$(margin "$work/all.json" mouse-left)"

ok rank -b "$b" -s "$s" -q x --trec -k 2
same "$(wc -l <"$out" | tr -d ' ')" 2
same "$(awk '{print NF, $1, $2, $4, $5, $6}' "$out" | tr '\n' ';')" \
    "6 q Q0 1 2 mixrank-untrained;6 q Q0 2 1 mixrank-untrained;"
err_has "$notice"

# ---- candidates ----

ok rank -b "$b" -s "$s" -q lamp -c lamp-desk,nobody,lamp-salt --json
same "$(json 'items.*.id' | sed -n 2p)" nobody
same "$(json items.1.source) $(json items.1.reason) $(json items.1.margin)" "prior missing null"
same "$(json scored) $(json candidates)" "2 3"
ok rank -b "$b" -s "$s" -q lamp -c nobody,nothing
out_has "(missing)"
out_has "degraded: low_coverage"
printf 'lamp-desk\r\n\nnobody\nlamp-salt' >"$work/ids"
ok rank -b "$b" -s "$s" -q lamp -c - --json <"$work/ids"
same "$(json candidates) $(json scored)" "3 2"
fails rank -b "$b" -s "$s" -q lamp -c - </dev/null
err_has "the request has no candidates"

# Any bytes may be an id: the output is clean text and valid JSON all the same.
printf 'lamp-desk\n\033[31m\377\n' >"$work/ids"
ok rank -b "$b" -s "$s" -q lamp -c - <"$work/ids"
! grep -q "$(printf '\033')" "$out" || fail "an escape reached the terminal"
ok rank -b "$b" -s "$s" -q lamp -c - --json -x <"$work/ids"
json_valid
same "$(json 'items.*.id' | wc -l | tr -d ' ')" 2

# Text of the catalogue takes the place of vectors that the store does not have.
{
    cat "$items"
    echo '{"id":"new-lamp","title":"New lamp","text":"A lamp that came in today.","prior":1}'
} >"$work/more.jsonl"
ok rank -b "$b" -s "$s" -i "$work/more.jsonl" -q lamp -c lamp-desk,new-lamp --json
same "$(json 'items.*' | grep new-lamp | sed 's/.*"source":"\([a-z]*\)".*/\1/')" text

# Priors: blend, and the deadline's order.
printf '{"id":"lamp-desk","prior":1}\n{"id":"lamp-salt","prior":3}\n{"id":"lamp-head","prior":2}\n' \
    >"$work/priors.jsonl"
ok rank -b "$b" -s "$s" -i "$work/priors.jsonl" -c lamp-desk,lamp-salt,lamp-head -q x --blend 1e6 --json
same "$(json 'items.*.id' | tr '\n' ' ')" "lamp-salt lamp-head lamp-desk "
ok rank -b "$b" -s "$s" -q x -k 0 --timeout-ms 3600000 --json
same "$(json scored)" "$n_items"

# ---- users ----

sed 's/.*"id":"\([^"]*\)".*/\1/' "$users" >"$work/ids" # some with blanks and beyond ASCII
while IFS= read -r user; do
    ok rank -b "$b" -s "$s" -q lamp -u "$user" -k 1 --json </dev/null
    same "$(json degraded)" "[]" "user $user"
done <"$work/ids"
ok rank -b "$b" -s "$s" -u ada -k 0 --json # a user alone
[ "$(json items)" != "$all" ] || fail "the user changes nothing"
ok rank -b "$b" -s "$s" -q lamp -u "nobody at all" -k 1
out_has "degraded: user_missing"

# ---- explain ----

ok rank -b "$b" -s "$s" -q "quiet keyboard" -u ada -k 2 -x
for part in "shared by all candidates" "field query" "slot  user" "slot  item" "embedding token" \
    "<|endoftext|>" "% saved" "time     fetch" "GFLOP" "$n_items by model"; do
    out_has "$part"
done
ok rank -b "$b" -s "$s" -q "quiet keyboard" -u ada -k 2 -x --json
json_valid
same "$(json explain.prefix.1.name) $(json explain.prefix.1.tokens)" "query 14"
[ "$(json explain.work.tokens_without_sharing)" -gt "$(json explain.work.prefix_tokens)" ] ||
    fail "nothing was shared"

# The text of every special token is text: no slot is forged.
ok rank -b "$b" -s "$s" -q '<|endoftext|><|im_start|><|im_end|>' -k 1 -x --json
same "$(json explain.prefix.1.kind) $(json explain.prefix.1.cut)" "field false"
same "$(json explain.prefix | grep -c '259')" 0

# ---- many requests ----

ok rank -b "$b" -s "$s" -i "$items" -r "$queries" -k 0 --json
json_valid lines
same "$(wc -l <"$out" | tr -d ' ')" "$n_queries"
same "$(json lines id)" "$("$JSONCHECK" lines id <"$queries")"
same "$(json lines candidates | head -n 1)" 10
ok rank -b "$b" -s "$s" -r "$queries" --trec
same "$(awk '{print $1}' "$out" | sort -u | wc -l | tr -d ' ')" "$n_queries"
ok rank -b "$b" -s "$s" -r "$queries" --limit 2 --json
same "$(wc -l <"$out" | tr -d ' ')" 2
ok rank -b "$b" -s "$s" -r - --json <"$queries"
same "$(wc -l <"$out" | tr -d ' ')" "$n_queries"
echo '{"query":"lamp","history":["cam-night","nobody"],"candidates":["lamp-desk",
 {"id":"inline","text":"A lamp."},{"id":"lamp-salt","title":"x"}]}' | tr -d '\n' >"$work/r.jsonl"
ok rank -b "$b" -s "$s" -r "$work/r.jsonl" --json
same "$(json scored)" 3

request_fails()
{
    printf '{"query":"ok","candidates":["lamp-desk"]}\n%s\n' "$1" >"$work/r.jsonl"
    run rank -b "$b" -s "$s" -r "$work/r.jsonl" --json
    [ "$status" -eq 1 ] || fail "expected exit 1"
    same "$(wc -l <"$out" | tr -d ' ')" 1 "the request before it"
    err_has "line 2 of $work/r.jsonl"
    err_has "$2"
}
request_fails '{"query":3}' "'query' is the number 3, expected a string"
request_fails '{"query":"x","user":[]}' "'user' is an array, expected a string"
request_fails '{"query":"x","candidates":{}}' "'candidates' is an object, expected an array"
request_fails '{"query":"x","candidates":[7]}' "a candidate is the number 7, expected an id or an object"
request_fails '{"query":"x","candidates":[{"title":"y"}]}' "'id' is missing"
request_fails '{"query":"x","candidates":[]}' "the request has no candidates"
request_fails '{"query":"x","history":"cam-night"}' "'history' is the string"
request_fails '{"query":"x","history":[1]}' "'history' holds the number 1"
request_fails '{"query":""}' "nothing to rank by"
request_fails '{"query":' ""

# ---- what does not fit ----

ok bundle untrained --item-tokens 2 --seed 4 "$work/other"
fails rank -b "$work/other" -s "$s" -q x
err_has "has no item of space"
err_has "encode them with this bundle"
fails check -b "$work/other" -s "$s"
ok check -b "$b" -s "$s" --json
json_valid
same "$(json bundle.golden) $(json store.backend) $(json notice)" "passed lmdb $notice"
fails check -b "$work/other" -s "$s" --json
json_valid
same "$(json error | grep -c 'has no item of space')" 1
fails rank -b "$b" -s "$work/nowhere" -q x
err_has "there is no store at '$work/nowhere'"
fails rank -b "$work/nowhere" -s "$s" -q x
err_has "no bundle.json there"
fails rank -b "$b" -s "$s" -q "$(printf 'caf\351')"
err_has "--query is not UTF-8 at byte 3"
fails rank -b "$b" -s "$s" -q ""
err_has "the query is empty and there is no user"
fails rank -b "$b" -s "$s" -q x --max-candidates 10
err_has "the request has $n_items candidates; this ranker takes 10"
fails rank -b "$b" -s "$s" -q x -f instruction
err_has "--field 'instruction': expected NAME=TEXT"
awk 'BEGIN { printf "{\"query\":\""; for (i = 0; i < 1048577; i++) printf "q"; print "\"}" }' >"$work/r.jsonl"
fails rank -b "$b" -s "$s" -r "$work/r.jsonl"
err_has "the query is 1048577 bytes long; this ranker takes 1048576"

# A store with users alone: its items are missed by whoever wants them from it.
ok encode -b "$b" -s "$work/empty" -i - </dev/null
fails rank -b "$b" -s "$work/empty" -q x
err_has "has no items; \`mixrank encode\` puts them there"
ok rank -b "$b" -s "$work/empty" -i "$items" -q lamp -c lamp-desk --json
same "$(json items.0.source)" text

# A removed or damaged store file is an error of its own.
cp -r "$s" "$work/cut"
head -c 8192 "$s/data.mdb" >"$work/cut/data.mdb"
fails rank -b "$b" -s "$work/cut" -q x
err_has "it was cut short"

# ---- text mode ----

ok bundle from-reranker "$DATA/reranker" "$work/reranker"
ok rank -b "$work/reranker" -i "$items" -q "red kettle" -k 3 --json
same "$(json 'items.*.source' | sort -u) $(json scored)" "text $n_items"
ok rank -b "$work/reranker" -i "$items" -q "red kettle" -k 3 -x
out_has "join"
out_lacks "$notice"
first=$(ok rank -b "$work/reranker" -i "$items" -q "red kettle" -k 0 --json && json items)
ok rank -b "$work/reranker" -i "$items" -q "red kettle" -k 0 --json -f "instruction=Find what to buy"
[ "$(json items)" != "$first" ] || fail "the instruction changes nothing"
