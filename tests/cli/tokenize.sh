#!/bin/sh
# tokenize.sh - lines to ids and back.
# SPDX-License-Identifier: Apache-2.0
. "$(dirname "$0")/lib.sh"

model=$DATA/mixed/llm

it "turns lines into ids and back, as text and as JSON"
# tests/data/mixed/reference.json has these ids.
printf 'red kettle\nblue\n' >"$work/lines"
ok tokenize --model "$model" <"$work/lines"
same "$(sed -n 1p "$out")" "468 67 579"
same "$(wc -l <"$out" | tr -d ' ')" 2
err_empty
cp "$out" "$work/ids"
ok tokenize --model "$model" --decode <"$work/ids"
same "$(cat "$out")" "$(cat "$work/lines")" "back again"
ok tokenize --model "$model/tokenizer.json" --decode <"$work/ids"
same "$(cat "$out")" "$(cat "$work/lines")" "by the file itself"

ok tokenize --model "$model" --json <"$work/lines"
json_valid lines
same "$(json lines ids | head -n 1)" "[468,67,579]"
ok tokenize --model "$model" --decode --json <"$work/ids"
same "$(json lines text | tail -n 1)" blue

it "parses special tokens unless they are to be plain text, as in fields of a prompt"
echo 'a<|endoftext|>b' >"$work/special"
ok tokenize --model "$model" <"$work/special"
same "$(cat "$out")" "64 628 65"
cp "$out" "$work/ids"
ok tokenize --model "$model" --decode --skip-special <"$work/ids"
same "$(cat "$out")" ab
ok tokenize --model "$model" --plain <"$work/special"
out_lacks 628
cp "$out" "$work/ids"
ok tokenize --model "$model" --decode <"$work/ids"
same "$(cat "$out")" 'a<|endoftext|>b'

it "gives the ids and texts of the reference, with every tokenizer"
n=0
for folder in "$DATA"/tokenizers/*/; do
    # Texts of one line; what has an escape like \n in it is left out.
    grep -v '"text": "[^"]*\\\(n\|r\|u0000\)' "$folder/cases.jsonl" >"$work/cases"
    "$JSONCHECK" lines text <"$work/cases" >"$work/lines"
    same "$(wc -l <"$work/lines")" "$(wc -l <"$work/cases")" "one line each"
    ok tokenize --model "$folder" --json <"$work/lines"
    json lines ids >"$work/ids"
    "$JSONCHECK" lines ids <"$work/cases" | cmp -s - "$work/ids" || fail "$folder: ids"
    ok tokenize --model "$folder" --add-special --json <"$work/lines"
    same "$(json lines ids | cksum)" "$("$JSONCHECK" lines ids_add_special <"$work/cases" | cksum)" \
        "$folder: --add-special"
    ok tokenize --model "$folder" --plain --json <"$work/lines"
    same "$(json lines ids | cksum)" \
        "$("$JSONCHECK" lines ids_no_special_parsing <"$work/cases" | cksum)" "$folder: --plain"
    ok tokenize --model "$folder" --decode --json <"$work/ids"
    same "$(json lines text | cksum)" "$("$JSONCHECK" lines decoded <"$work/cases" | cksum)" \
        "$folder: --decode"
    ok tokenize --model "$folder" --decode --skip-special --json <"$work/ids"
    same "$(json lines text | cksum)" \
        "$("$JSONCHECK" lines decoded_skip_special <"$work/cases" | cksum)" "$folder: --skip-special"
    n=$((n + $(wc -l <"$work/cases")))
done
[ "$n" -ge 500 ] || fail "only $n texts were compared"

it "gives a text back, with its emoji, CJK and blanks inside"
n=0
for folder in "$DATA"/tokenizers/*/; do
    printf 'The red kettle costs 1,299.50.\n\346\220\234\347\264\242 \360\237\230\200 na\303\257ve  two\n' >"$work/lines"
    ok tokenize --model "$folder" <"$work/lines"
    cp "$out" "$work/ids"
    ok tokenize --model "$folder" --decode <"$work/ids"
    case $folder in
        *lowercase*) sed -i 's/The/the/' "$work/lines" ;; # what is lost does not come back
    esac
    same "$(cat "$out")" "$(cat "$work/lines")" "$folder"
    n=$((n + 1))
done
[ "$n" -ge 3 ] || fail "only $n tokenizers found"

it "takes an empty line, no line, and a last line without its end"
printf '\n' >"$work/lines"
ok tokenize --model "$model" <"$work/lines"
same "$(wc -c <"$out" | tr -d ' ')" 1
ok tokenize --model "$model" </dev/null
same "$(wc -c <"$out" | tr -d ' ')" 0
printf 'red kettle' >"$work/lines"
ok tokenize --model "$model" <"$work/lines"
same "$(cat "$out")" "468 67 579"

it "names the line of what it cannot turn"
printf 'good\nbad \377 line\n' >"$work/lines"
fails tokenize --model "$model" <"$work/lines"
err_has "line 2: "
err_has "UTF-8"
echo '1 2 x' >"$work/lines"
fails tokenize --model "$model" --decode <"$work/lines"
err_has "line 1: 'x' is not a token id"
echo '999999' >"$work/lines"
fails tokenize --model "$model" --decode <"$work/lines"
err_has "line 1: "
printf '1 2\0 3\n' >"$work/lines"
fails tokenize --model "$model" --decode <"$work/lines"
err_has "line 1: a NUL byte stands among the token ids"
fails tokenize --model "$model" <"$work"
err_has "cannot read 'standard input': Is a directory"
fails tokenize --model "$work" <"$work/lines"
err_has "tokenizer.json"

it "fails when the results cannot be written, however many"
seq 1 3000 >"$work/lines"
disk_full tokenize --model "$model" <"$work/lines"
seq 1 7 >"$work/lines"
disk_full tokenize --model "$model" <"$work/lines"

it "ends when nobody reads on"
status=0
last="tokenize into a closed pipe"
mkfifo "$work/pipe"
head -n 1 "$work/pipe" >"$work/first" &
children=$!
yes hello | timeout 60 "$MIXRANK" tokenize --model "$model" >"$work/pipe" 2>"$err" || status=$?
children=
[ "$status" -ne 124 ] || fail "it went on for a minute"
[ "$status" -ne 0 ] || fail "it took a closed pipe for success"
