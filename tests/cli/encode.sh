#!/bin/sh
# encode.sh - items and users into a store: repeated, changed, killed, full, wrong.
# SPDX-License-Identifier: Apache-2.0
. "$(dirname "$0")/lib.sh"

items=$DATA/fixture/items.jsonl
users=$DATA/fixture/users.jsonl
n_items=$(wc -l <"$items" | tr -d ' ')
n_users=$(wc -l <"$users" | tr -d ' ')
b=$work/bundle
s=$work/store
ok bundle untrained --item-tokens 2 "$b"

# Ids, places and margins of all items for one query: what the records hold, to the last bit.
ranking()
{
    ok rank -b "$b" -s "$1" -q "a light that does not wake others" -k 0 --json
    json items
}

# The counts of the last call's line $1.
count()
{
    json lines "$2" | sed -n "$1p"
}

it "encodes a catalogue and its users"
ok encode -b "$b" -s "$s" -i "$items" -u "$users" --exact --json
json_valid lines
same "$(cat "$err")" "mixrank encode: $notice" "no other talk when nobody watches"
same "$(json lines notice | sort -u)" "$notice"
same "$(count 1 entity) $(count 1 read) $(count 1 encoded) $(count 1 skipped) $(count 1 version)" \
    "items $n_items $n_items 0 1"
same "$(count 2 entity) $(count 2 read) $(count 2 encoded) $(count 2 skipped) $(count 2 version)" \
    "users $n_users $n_users 0 1"
same "$(count 2 unknown_history_items)" 0
first=$(ranking "$s")

it "skips in a second run what is there"
ok encode -b "$b" -s "$s" -i "$items" -u "$users" --exact --json
same "$(count 1 encoded) $(count 1 skipped) $(count 1 version) $(count 1 text_tokens)" \
    "0 $n_items 1 0"
same "$(count 2 encoded) $(count 2 skipped) $(count 2 stale)" "0 $n_users 0"
same "$(ranking "$s")" "$first"

ok encode -b "$b" -s "$s" -i "$items" --exact
out_has "$n_items already there"
out_has "$notice"

it "makes all records anew when what they are made from changed"
sed '3s/"text":"/"text":"Brand new. /' "$items" >"$work/changed.jsonl"
ok encode -b "$b" -s "$s" -i "$work/changed.jsonl" -u "$users" --exact --json
same "$(count 1 version) $(count 1 encoded) $(count 1 skipped)" "2 $n_items 0"
same "$(count 2 version) $(count 2 encoded) $(count 2 skipped)" "2 $n_users 0"
[ "$(ranking "$s")" != "$first" ] || fail "the change is not in the records"
ok encode -b "$b" -s "$s" -i "$items" -u "$users" --exact --json
same "$(count 1 version) $(count 1 encoded)" "3 $n_items"
same "$(count 2 version) $(count 2 encoded)" "3 $n_users" # of other items
same "$(ranking "$s")" "$first"
ok encode -b "$b" -s "$s" -i "$items" --exact --dtype f32 --json
same "$(json version) $(json encoded)" "4 $n_items"
ok encode -b "$b" -s "$s" -i "$items" --exact --dtype f32 --version 9 --json
same "$(json version) $(json encoded)" "9 $n_items"
ok encode -b "$b" -s "$s" -i "$work/changed.jsonl" --exact --json
same "$(json version) $(json encoded)" "10 $n_items"
ok encode -b "$b" -s "$s" -i "$items" --exact --version 5 --json
same "$(json encoded) $(json skipped)" "0 $n_items" "an older version replaces nothing"

it "gives the same records in batches of any size, in any of the four types"
for dtype in f32 f16 bf16 int8; do
    ok encode -b "$b" -s "$work/one-$dtype" -i "$items" --exact --dtype $dtype --batch 1
    ok encode -b "$b" -s "$work/all-$dtype" -i "$items" --exact --dtype $dtype --batch 1000 -t 2
    same "$(ranking "$work/one-$dtype")" "$(ranking "$work/all-$dtype")" $dtype
done
same "$(ranking "$work/one-bf16")" "$first" "bf16 is the default"

it "keeps what an item means in every type, and rounds as the type does"
margins()
{
    ok rank -b "$b" -s "$work/all-$1" -q "a light that does not wake others" \
        -c "$(cut -d'"' -f4 "$items" | tr '\n' ,)" -k 0 --json
    json 'items.*' | sed 's/.*"index":\([0-9]*\),.*"margin":\([^,]*\),.*/\1 \2/' | sort -n
}
margins f32 >"$work/margins-f32"
for bound in f16:0.002 bf16:0.02 int8:0.02; do
    margins "${bound%:*}" >"$work/margins"
    off=$(paste -d' ' "$work/margins-f32" "$work/margins" |
        awk '{ d = $2 - $4; d = d < 0 ? -d : d; a = $2 < 0 ? -$2 : $2
               if (d > most) most = d; if (a > largest) largest = a }
             END { print most / largest }')
    compare "$off" "<" "${bound#*:}" "${bound%:*} off f32, of the largest margin"
    compare "$off" ">" 0 "${bound%:*} is f32"
done

# Without --exact OpenBLAS encodes: other last bits, which bf16 hides from most.
ok encode -b "$b" -s "$work/blas" -i "$items" --json
same "$(json encoded)" "$n_items"

it "goes on where it was after SIGKILL, twice, and ends with the same records"
n=1000
killed=0
rm -rf "$work/killed"
make_items $n >"$work/many.jsonl"
while [ $killed -lt 2 ]; do
    "$MIXRANK" encode -b "$b" -s "$work/killed" -i "$work/many.jsonl" --exact --dtype f32 \
        --batch 4 >"$out" 2>"$err" &
    pid=$!
    children=$pid
    last="encode of $n items, killed"
    before=${there:-0}
    records=0
    while [ "$records" -le "$before" ] && kill -0 $pid 2>/dev/null; do
        run check -s "$work/killed" --json
        [ "$status" -ne 0 ] || records=$(json store.records)
    done
    kill -9 $pid 2>/dev/null || true
    status=0
    wait $pid 2>/dev/null || status=$?
    children=
    if [ "$status" -ne 137 ]; then # it was over before the kill
        if [ $n -gt 100000 ]; then
            fail "cannot kill it in time"
            break
        fi
        n=$((n * 4))
        killed=0
        there=0
        rm -rf "$work/killed"
        make_items $n >"$work/many.jsonl"
        continue
    fi
    killed=$((killed + 1))
    ok check -s "$work/killed" --json
    there=$(json store.records)
    echo "killed with $there of $n records"
    [ "$there" -gt "$before" ] && [ "$there" -lt $n ] ||
        fail "$there of $n were there after the kill, $before before"
    same $((there % 4)) 0 "records of whole batches, which are one transaction each"
done
ok rank -b "$b" -s "$work/killed" -q x # what is there can be ranked
ok encode -b "$b" -s "$work/killed" -i "$work/many.jsonl" --exact --dtype f32 --json
same "$(json version) $(json skipped) $(json encoded)" "1 $there $((n - there))"
ok encode -b "$b" -s "$work/whole" -i "$work/many.jsonl" --exact --dtype f32 --json
took=$(json seconds)
same "$(ranking "$work/killed" | cksum)" "$(ranking "$work/whole" | cksum)"

it "does a second run in less than half of the time"
ok encode -b "$b" -s "$work/whole" -i "$work/many.jsonl" --exact --dtype f32 --json
same "$(json encoded) $(json skipped)" "0 $n"
compare "$(json seconds)" "<" "$(echo "$took" | awk '{ print $1 / 2 }')"

it "makes users again that were made from half a catalogue"
head -n 30 "$items" >"$work/half.jsonl"
printf '{"id":"last"' >>"$work/half.jsonl"
fails encode -b "$b" -s "$work/half" -i "$work/half.jsonl" --exact --batch 10
err_has "line 31 of $work/half.jsonl"
ok encode -b "$b" -s "$work/half" -u "$users" --exact --json
[ "$(json unknown_history_items)" -gt 0 ] || fail "nothing was missing"
ok encode -b "$b" -s "$work/half" -i "$items" -u "$users" --exact --json
same "$(count 2 unknown_history_items) $(count 2 encoded)" "0 $n_users"

it "says once that the map is full, and loses nothing"
make_items 3000 >"$work/many.jsonl"
fails encode -b "$b" -s "$work/full" -i "$work/many.jsonl" --map-gb 0.001 --batch 64
err_has "with --map-gb 0.001: LMDB store '$work/full' is full"
err_has "all else is readable"
ok check -s "$work/full" --json
there=$(json store.records)
[ "$there" -gt 0 ] || fail "nothing is there"
ok rank -b "$b" -s "$work/full" -q x
ok encode -b "$b" -s "$work/full" -i "$work/many.jsonl" --map-gb 0.1 --json
same "$(json skipped)" "$there"
same $(($(json skipped) + $(json encoded))) 3000

it "names the line of a wrong item or user"
wrong()
{
    printf '{"id":"good","text":"x"}\n%s\n' "$1" >"$work/wrong.jsonl"
    fails encode -b "$b" -s "$work/wrong" -i "$work/wrong.jsonl"
    err_has "line 2 of $work/wrong.jsonl"
    err_has "$2"
}
wrong '{"id":"x",' ""
wrong '[1]' ""
wrong '{"text":"x"}' "'id' is missing, expected a string that is not empty"
wrong '{"id":""}' "'id' is the string \"\""
wrong '{"id":7}' "'id' is the number 7"
wrong '{"id":"x","prior":"high"}' "'prior' is the string \"high\", expected a number"
wrong "{\"id\":\"$(printf '%401s' x)\"}" "'id' is 401 bytes long, expected at most 400"
wrong '{"id":"x","vector":[1,"y"]}' "the string \"y\" at column 1"
wrong '{"id":"x","vectors":[[1],[1,2]]}' "not an array of 1 numbers"
wrong '{"id":"x","vectors":[]}' "expected 1 to 1024 rows"
printf '{"id":"caf\351"}\n' >"$work/wrong.jsonl"
fails encode -b "$b" -s "$work/wrong" -i "$work/wrong.jsonl"
err_has "line 1 of"
printf '{"id":"u","history":"a"}\n' >"$work/wrong.jsonl"
fails encode -b "$b" -s "$s" -u "$work/wrong.jsonl"
err_has 'line 1 of'
err_has 'expected {"id": string, "history": [item ids]}'
printf '{"id":"u","history":["a",3]}\n' >"$work/wrong.jsonl"
fails encode -b "$b" -s "$s" -u "$work/wrong.jsonl"
err_has "'history' holds the number 3"
fails encode -b "$b" -s "$s" -i "$work/nowhere.jsonl"
err_has "nowhere.jsonl"

printf '{"id":"good","text":"x"}\n[]\n' >"$work/wrong.jsonl"
fails encode -b "$b" -s "$work/wrong" -i - <"$work/wrong.jsonl"
err_has "line 2 of standard input"
fails encode -b "$b" -s "$s" -i "$work"
err_has "expected a regular file"
mkfifo "$work/pipe" # could be read once only; not to be waited for
fails encode -b "$b" -s "$s" -i "$work/pipe"
err_has "is a pipe, expected a regular file"

it "takes the first of two items with one id"
printf '{"id":"x","text":"first"}\n{"id":"x","text":"second"}\n' >"$work/twice.jsonl"
head -n 1 "$work/twice.jsonl" >"$work/once.jsonl"
ok encode -b "$b" -s "$work/once" -i "$work/once.jsonl" --exact
ok encode -b "$b" -s "$work/twice" -i "$work/twice.jsonl" --exact --json
same "$(json encoded) $(json stale)" "1 1"
same "$(ranking "$work/twice")" "$(ranking "$work/once")"

it "encodes items without text, and standard input as a version of its own"
printf '{"id":"empty","text":""}\n{"id":"none"}\n{"id":"full","text":"x"}\n' >"$work/few.jsonl"
ok encode -b "$b" -s "$work/few" -i - --json <"$work/few.jsonl"
same "$(json read) $(json encoded) $(json version)" "3 3 1" # "Item information: " is text
ok encode -b "$b" -s "$work/few" -i - --json <"$work/few.jsonl"
same "$(json encoded) $(json version)" "3 2"

it "cannot write where no store can be"
: >"$work/file"
fails encode -b "$b" -s "$work/file" -i "$items"
err_has "store path '$work/file' is a file; an LMDB store is a folder"
fails encode -b "$b" -s "$work/file/store" -i "$items"
err_has "$work/file/store"
fails encode -b "$b" -s "" -i "$items"
err_has "no store named"
fails encode -b "$b" -s redis://127.0.0.1:1 -i "$items"
err_has "Redis at 127.0.0.1:1: "
if [ "$(id -u)" -ne 0 ]; then
    mkdir -m 500 "$work/read-only"
    fails encode -b "$b" -s "$work/read-only/store" -i "$items"
    err_has "Permission denied"
fi
fails encode -b "$work/nowhere" -s "$work/none" -i "$items"
err_has "no bundle.json there"
disk_full encode -b "$b" -s "$s" -i "$items" --exact --json

it "refuses bundles that have nothing to encode with"
ok bundle from-reranker "$DATA/reranker" "$work/reranker"
fails encode -b "$work/reranker" -s "$work/none" -i "$items"
err_has "ranks text: it has no item vectors to keep"
ok bundle untrained --user-tokens 0 "$work/no-users"
fails encode -b "$work/no-users" -s "$work/none" -u "$users"
err_has "has no history encoder"
[ ! -e "$work/none" ] || fail "a store was made for nothing"

it "keeps vectors from outside, and refuses wrong ones"
cat >"$work/external.json" <<'EOF'
{"format": 1, "name": "outside", "mode": "mixed", "max_length": 128,
 "prefix": ["Query: ", {"field": "query"}], "suffix": [{"slot": "item"}, {"token": "<|endoftext|>"}],
 "score": {"yes": "yes", "no": "no"},
 "encoders": {"item": {"kind": "external", "name": "mini", "dim": 24, "normalised": true}}}
EOF
ok bundle create --spec "$work/external.json" --llm "$DATA/mixed/llm" \
    --item-projector "$DATA/projectors/mlp-f32/projector.safetensors" "$work/external"
awk 'BEGIN { for (i = 0; i < 24; i++) { printf "{\"id\":\"v%d\",\"vector\":[", i
    for (k = 0; k < 24; k++) printf "%s%d", k ? "," : "", k == i
    print "]}" } }' >"$work/vectors.jsonl"
ok encode -b "$work/external" -s "$work/vectors" -i "$work/vectors.jsonl" --json
same "$(json encoded) $(json text_tokens)" "24 0"
ok rank -b "$work/external" -s "$work/vectors" -q "red kettle" -k 0 --json
same "$(json scored)" 24
same "$(json 'items.*.source' | sort -u)" model
sed 's/1\]/2]/' "$work/vectors.jsonl" >"$work/long.jsonl"
fails encode -b "$work/external" -s "$work/vectors" -i "$work/long.jsonl"
err_has "item 'v23'"
fails encode -b "$work/external" -s "$work/vectors" -i "$items"
err_has "has no 'vector': the bundle's item space 'mini' comes from outside"
printf '{"id":"x","vector":[1,0]}\n' >"$work/short.jsonl"
fails encode -b "$work/external" -s "$work/vectors" -i "$work/short.jsonl"
err_has "item 'x' has vectors [1, 2], the bundle takes up to [1, 24]"
[ ! -e "$work/none" ] || fail "a store was made for nothing"
external_fails()
{
    printf '%s\n' "$1" >"$work/wrong.jsonl"
    fails encode -b "$work/external" -s "$work/vectors" -i "$work/wrong.jsonl"
    err_has "$2"
}
zeros=0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0
external_fails "{\"id\":\"x\",\"vector\":[$zeros,1e39]}" "at column 23, expected a finite number"
external_fails "{\"id\":\"x\",\"vector\":[$zeros,1e999]}" "line 1 of"
external_fails "{\"id\":\"x\",\"vector\":[$zeros,NaN]}" "line 1 of"
external_fails "{\"id\":\"x\",\"vector\":[$zeros,0]}" "item 'x'"
external_fails "{\"id\":\"x\",\"vector\":[$zeros,null]}" "has null at column 23"
external_fails "{\"id\":\"x\",\"vectors\":[[$zeros,1],[$zeros,1]]}" "has vectors [2, 24]"
ok rank -b "$work/external" -s "$work/vectors" -q "red kettle" -k 0 --json
same "$(json scored)" 24 "none of them is in the store"
ok encode -b "$work/external" -s "$work/vectors" -i "$work/vectors.jsonl" --json
out_lacks "$notice" # the weights are not said to be random
err_empty
