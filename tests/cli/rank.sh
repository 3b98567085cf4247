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

it "ranks all items of the store for one query"
ok rank -b "$b" -s "$s" -i "$items" -q "quiet keyboard" -k 3
out_has "place  score       margin  source  item"
out_has "$n_items of $n_items candidates scored"
out_has "$notice"
err_has "$notice"
same "$(grep -c ' model ' "$out")" 3
out_lacks degraded

ok rank -b "$b" -s "$s" -q "quiet keyboard" -k 0 --json
json_valid
same "$(cat "$err")" "mixrank rank: $notice" "no other talk when nobody watches"
same "$(json notice)" "$notice"
same "$(json 'items.*.id' | wc -l | tr -d ' ')" "$n_items"
same "$(json 'items.*.id' | sort -u | wc -l | tr -d ' ')" "$n_items"
same "$(json 'items.*.margin')" "$(json 'items.*.margin' | sort -g -r)" "best first"
same "$(json degraded)" "[]"
cp "$out" "$work/all.json"
all=$(json items)

it "gives the same bits with one and with two threads, alone and in any company"
for threads in 1 2; do
    ok rank -b "$b" -s "$s" -q "quiet keyboard" -k 0 --json -t $threads
    same "$(json items)" "$all" "$threads threads"
done

margin()
{
    "$JSONCHECK" 'items.*' <"$1" | grep -F "\"id\":\"$2\"" | sed 's/.*"margin":\([^,]*\),.*/\1/'
}
ok rank -b "$b" -s "$s" -q "quiet keyboard" -c mouse-left --json
same "$(margin "$out" mouse-left)" "$(margin "$work/all.json" mouse-left)"
ok rank -b "$b" -s "$s" -q "quiet keyboard" -c nobody,lamp-desk,mouse-left,mouse-left --json
same "$(margin "$out" mouse-left | sort -u)" "$(margin "$work/all.json" mouse-left)"

it "writes TREC runs"
ok rank -b "$b" -s "$s" -q x --trec -k 2
same "$(wc -l <"$out" | tr -d ' ')" 2
same "$(awk '{print NF, $1, $2, $4, $5, $6}' "$out" | tr '\n' ';')" \
    "6 q Q0 1 2 mixrank-untrained;6 q Q0 2 1 mixrank-untrained;"
err_has "$notice"
out_lacks "$notice"
ok rank -b "$b" -s "$s" -q x --trec -k 0
same "$(awk '{ print $4 }' "$out")" "$(seq 1 "$n_items")"
same "$(awk '{ print $5 }' "$out")" "$(seq "$n_items" -1 1)"
run=$(awk '{ print $3 }' "$out")
ok rank -b "$b" -s "$s" -q x --json -k 0
same "$run" "$(json 'items.*.id')"
printf '{"query":"x"}\n\n{"query":"y"}\n{"id":"third","query":"y"}\n' >"$work/r.jsonl"
ok rank -b "$b" -s "$s" -r "$work/r.jsonl" --trec -k 1
same "$(awk '{ print $1 }' "$out" | tr '\n' ' ')" "q1 q3 third " "one query, one name"
long=$(printf '%0400d' 7)
printf '{"id":"%s","query":"x","candidates":["%s"]}\n' "$long" "$long" >"$work/r.jsonl"
ok rank -b "$b" -s "$s" -r "$work/r.jsonl" --trec
same "$(cat "$out")" "$long Q0 $long 1 1 mixrank-untrained"

it "refuses ids that a TREC run cannot hold"
trec_fails()
{
    printf '%s\n' "$1" >"$work/r.jsonl"
    fails rank -b "$b" -s "$s" -r "$work/r.jsonl" --trec
    [ ! -s "$out" ] || fail "half a run was written"
    err_has "$2"
}
trec_fails '{"query":"x","candidates":["lamp-desk","a b"]}' "item id 'a b' has a blank"
trec_fails '{"id":"a\tb","query":"x"}' "query id 'a?b' has a blank or a control character"
trec_fails '{"query":"x","candidates":["\u001b[31m"]}' "control character"
trec_fails '{"query":"x","candidates":["\u009b31m"]}' "control character"
trec_fails '{"query":"x","candidates":[""]}' "is empty"

it "takes candidates by id, and says which are not there"

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

fails rank -b "$b" -s "$s" -q lamp -c - <"$work"
err_has "cannot read 'standard input': Is a directory"
fails rank -b "$b" -s "$s" -q lamp -c ,,
err_has "the request has no candidates"

it "takes 10,000 candidates on standard input"
awk -v FS='"' '{ id[NR] = $4 } END { for (i = 0; i < 10000; i++)
    print i % 2 ? "nobody" i : id[i / 2 % NR + 1] }' "$items" >"$work/10000"
ok rank -b "$b" -s "$s" -q "quiet keyboard" -c - -k 0 --json <"$work/10000"
json_valid
same "$(json candidates) $(json scored) $(json degraded)" '10000 5000 []'
json 'items.*' >"$work/places"
same "$(wc -l <"$work/places" | tr -d ' ')" 10000
same "$(awk 'NR % 2 == 0' "$work/places" | grep -c '"source":"prior","reason":"missing"')" 5000 \
    "what cannot be scored keeps its place"
same "$(margin "$out" mouse-left | sort -u)" "$(margin "$work/all.json" mouse-left)"
fails rank -b "$b" -s "$s" -q x -c - --max-candidates 9999 <"$work/10000"
err_has "the request has 10000 candidates; this ranker takes 9999"

it "keeps the prior order for what the time did not suffice for"
ok rank -b "$b" -s "$s" -q "quiet keyboard" -c - -k 0 --json --timeout-ms 1 <"$work/10000"
json_valid
same "$(json degraded)" '["deadline"]'
scored=$(json scored)
[ "$scored" -lt 5000 ] || fail "$scored were scored in a millisecond"
json 'items.*' >"$work/places"
same "$(grep -c '"reason":"missing"' "$work/places") $(grep -c '"reason":"deadline"' "$work/places")" \
    "5000 $((5000 - scored))"
same "$(json 'items.*.index' | wc -l | tr -d ' ')" 10000
same "$(json 'items.*.index' | sort -n -u | wc -l | tr -d ' ')" 10000
grep '"deadline"' "$work/places" | sed 's/.*"index":\([0-9]*\),.*/\1/' >"$work/late"
same "$(cksum <"$work/late")" "$(sort -n "$work/late" | cksum)" "input order"
ok rank -b "$b" -s "$s" -q x -k 0 --timeout-ms 3600000 --json
same "$(json scored) $(json degraded)" "$n_items []"

it "prints clean text and valid JSON for ids of any bytes"
printf 'lamp-desk\n\033[31m\377\n' >"$work/ids"
ok rank -b "$b" -s "$s" -q lamp -c - <"$work/ids"
! grep -q "$(printf '\033')" "$out" || fail "an escape reached the terminal"
ok rank -b "$b" -s "$s" -q lamp -c - --json -x <"$work/ids"
json_valid
same "$(json 'items.*.id' | wc -l | tr -d ' ')" 2

it "encodes the text of candidates that the store does not have"
{
    cat "$items"
    echo '{"id":"new-lamp","title":"New lamp","text":"A lamp that came in today.","prior":1}'
} >"$work/more.jsonl"
ok rank -b "$b" -s "$s" -i "$work/more.jsonl" -q lamp -c lamp-desk,new-lamp --json
same "$(json 'items.*' | grep new-lamp | sed 's/.*"source":"\([a-z]*\)".*/\1/')" text

ok rank -b "$b" -i "$items" -q lamp -k 0 --json # no store at all
same "$(json scored) $(json 'items.*.source' | sort -u)" "$n_items text"

it "blends with priors"
printf '{"id":"lamp-desk","prior":1}\n{"id":"lamp-salt","prior":3}\n{"id":"lamp-head","prior":2}\n' \
    >"$work/priors.jsonl"
ok rank -b "$b" -s "$s" -i "$work/priors.jsonl" -c lamp-desk,lamp-salt,lamp-head -q x --blend 1e6 --json
same "$(json 'items.*.id' | tr '\n' ' ')" "lamp-salt lamp-head lamp-desk "
ok rank -b "$b" -s "$s" -i "$work/priors.jsonl" -c lamp-desk,lamp-salt,lamp-head -q x --blend -1e6 --json
same "$(json 'items.*.id' | tr '\n' ' ')" "lamp-desk lamp-head lamp-salt "
ok rank -b "$b" -s "$s" -i "$work/priors.jsonl" -c lamp-desk,lamp-salt,lamp-head -q x --json
same "$(json 'items.*.margin')" "$(json 'items.*.margin' | sort -g -r)" "without it by margin alone"
printf '{"id":"n1","prior":1}\n{"id":"n2","prior":3}\n{"id":"n3","prior":2}\n' >"$work/priors.jsonl"
ok rank -b "$b" -s "$s" -i "$work/priors.jsonl" -c n1,n2,n3 -q x --json
same "$(json 'items.*.id' | tr '\n' ' ') $(json scored)" "n2 n3 n1  0" "priors order what is not scored"

it "ranks for a user"

sed 's/.*"id":"\([^"]*\)".*/\1/' "$users" >"$work/ids" # some with blanks and beyond ASCII
while IFS= read -r user; do
    ok rank -b "$b" -s "$s" -q lamp -u "$user" -k 1 --json </dev/null
    same "$(json degraded)" "[]" "user $user"
done <"$work/ids"
ok rank -b "$b" -s "$s" -u ada -k 0 --json # a user alone
[ "$(json items)" != "$all" ] || fail "the user changes nothing"
ok rank -b "$b" -s "$s" -q lamp -u "nobody at all" -k 1
out_has "degraded: user_missing"

it "explains a ranking"

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

it "takes the text of special tokens for text: no slot is forged"
ok rank -b "$b" -s "$s" -q '<|endoftext|><|im_start|><|im_end|>' -k 1 -x --json
same "$(json explain.prefix.1.kind) $(json explain.prefix.1.cut)" "field false"
same "$(json explain.prefix | grep -c '259')" 0

it "ranks many requests from a file"

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

ok rank -b "$b" -s "$s" -r - -c lamp-desk,mouse-left --json <<'END'
{"query":"lamp"}
{"query":"lamp","candidates":["lamp-salt"]}
END
same "$(json lines candidates | tr '\n' ' ')" "2 1 " "--candidates are those of requests without any"
echo '{"query":"lamp","candidates":["lamp-desk",{"id":"narrow","vectors":[[1,2]]}]}' >"$work/r.jsonl"
ok rank -b "$b" -s "$s" -r "$work/r.jsonl" --json
same "$(json items.1.id) $(json items.1.reason) $(json scored)" "narrow wrong_shape 1"

it "names the line of a broken request, after those before it"
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
request_fails '[1]' "is an array, expected an object"
request_fails "{\"query\":\"caf$(printf '\351')\"}" "UTF-8"
request_fails '{"query":"x","candidates":[{"id":"x","vector":[1e39]}]}' "expected a finite number"
request_fails '{"id":7,"query":"x"}' "'id' is the number 7, expected a string"

it "says that a store is of another space, as check does"

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

it "names what is not there or cannot be a request"
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
fails rank -b "$b" -s "$s" -q x -f instrction=x
err_has "the prompt of bundle 'untrained' has no field 'instrction'"
fails rank -b "$b" -s "$s" -q x -u "$(printf '\377')"
err_has "--user is not UTF-8 at byte 0"

it "bounds a query: 1 MiB is cut to the prompt, 10 MB are refused"
query_of()
{
    printf '{"query":"'
    head -c "$1" /dev/zero | tr '\0' q
    printf '"}\n'
}
query_of 1048576 >"$work/r.jsonl"
ok rank -b "$b" -s "$s" -r "$work/r.jsonl" --json -x -k 1
same "$(json scored) $(json explain.prefix.1.cut) $(json explain.prefix.1.tokens)" "$n_items true 256"
query_of 1048577 >"$work/r.jsonl"
fails rank -b "$b" -s "$s" -r "$work/r.jsonl"
err_has "the query is 1048577 bytes long; this ranker takes 1048576"
query_of 10485760 >"$work/r.jsonl"
fails rank -b "$b" -s "$s" -r "$work/r.jsonl"
err_has "line 1 of $work/r.jsonl: the query is 10485760 bytes long"
query_of 16777216 >"$work/r.jsonl"
fails rank -b "$b" -s "$s" -r "$work/r.jsonl"
err_has "line 1 of $work/r.jsonl is longer than 16777216 bytes"

it "misses items of a store without any only when they are wanted from it"
ok encode -b "$b" -s "$work/empty" -i - </dev/null
fails rank -b "$b" -s "$work/empty" -q x
err_has "has no items; \`mixrank encode\` puts them there"
ok rank -b "$b" -s "$work/empty" -i "$items" -q lamp -c lamp-desk --json
same "$(json items.0.source)" text

it "names a store file that was cut short"
cp -r "$s" "$work/cut"
head -c 8192 "$s/data.mdb" >"$work/cut/data.mdb"
fails rank -b "$b" -s "$work/cut" -q x
err_has "it was cut short"

it "fails when the results cannot be written, however long they are"
disk_full rank -b "$b" -s "$s" -q x -k 1
disk_full rank -b "$b" -s "$s" -q x -k 0 --json
disk_full rank -b "$b" -s "$s" -r "$queries" --trec

it "ends when nobody reads on"
mkfifo "$work/pipe"
head -c 1 "$work/pipe" >/dev/null &
children=$!
status=0
last="rank into a closed pipe"
awk 'BEGIN { for (i = 0; i < 20000; i++) print "{\"query\":\"lamp\"}" }' |
    timeout 60 "$MIXRANK" rank -b "$b" -s "$s" -r - -k 0 --json >"$work/pipe" 2>"$err" || status=$?
children=
[ "$status" -ne 124 ] || fail "it went on for a minute"
[ "$status" -ne 0 ] || fail "it took a closed pipe for success"

it "ranks texts with a reranker"

ok bundle from-reranker "$DATA/reranker" "$work/reranker"
ok rank -b "$work/reranker" -i "$items" -q "red kettle" -k 3 --json
same "$(json 'items.*.source' | sort -u) $(json scored)" "text $n_items"
ok rank -b "$work/reranker" -i "$items" -q "red kettle" -k 3 -x
out_has "join"
out_lacks "$notice"
first=$(ok rank -b "$work/reranker" -i "$items" -q "red kettle" -k 0 --json && json items)
ok rank -b "$work/reranker" -i "$items" -q "red kettle" -k 0 --json -f "instruction=Find what to buy"
[ "$(json items)" != "$first" ] || fail "the instruction changes nothing"
fails rank -b "$work/reranker" -i "$items" -q x -f title=x
err_has "the prompt of bundle 'reranker' has no field 'title'"
echo '{"query":"lamp","candidates":["unheard-of",{"id":"x","document":"A lamp."}]}' >"$work/r.jsonl"
ok rank -b "$work/reranker" -i "$items" -r "$work/r.jsonl" --json
same "$(json items.0.reason) $(json items.1.source)" "missing text"

it "gives the margins that transformers gives with the published template"
ok bundle from-reranker "$DATA/reranker" "$work/long" --max-length 8192
# Rows with the default instruction as requests: keys change their places, strings stay as they are.
grep '^{"instruction": null, .*"max_length": 8192, ' "$DATA/reranker/scores.jsonl" |
    grep -v '"query": ""' >"$work/rows"
sed -n 's/^{"instruction": null, \("query": .*\), \("document": .*\), "max_length": 8192, .*/{\1, "candidates": [{"id": "d", \2}]}/p' \
    "$work/rows" >"$work/r.jsonl"
"$JSONCHECK" lines margin_plain <"$work/rows" >"$work/expected"
ok rank -b "$work/long" -r "$work/r.jsonl" --json
json lines items.0.margin >"$work/found"
n=$(wc -l <"$work/found" | tr -d ' ')
[ "$n" -ge 3 ] || fail "only $n rows were compared"
same "$n" "$(wc -l <"$work/expected" | tr -d ' ')"
off=$(paste -d' ' "$work/found" "$work/expected" |
    awk '{ d = $1 - $2; d = d < 0 ? -d : d; if (d > most) most = d } END { print most + 0 }')
compare "$off" "<" 1e-4 "the largest difference of $n margins"
