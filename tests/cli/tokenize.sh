#!/bin/sh
# tokenize.sh - lines to ids and back.
# SPDX-License-Identifier: Apache-2.0
. "$(dirname "$0")/lib.sh"

model=$DATA/mixed/llm

# tests/data/mixed/reference.json has these ids.
printf 'red kettle\nblue\n' >"$work/lines"
ok tokenize --model "$model" <"$work/lines"
same "$(sed -n 1p "$out")" "468 67 579"
same "$(wc -l <"$out" | tr -d ' ')" 2
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

# Special tokens: parsed unless they are to be plain text, which is what fields of a prompt get.
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

# Every tokenizer of the reference data gives a text back, with its emoji, CJK and blanks inside.
n=0
for folder in "$DATA"/tokenizers/*/; do
    printf 'The red kettle costs 1,299.50.\n\346\220\234\347\264\242 \360\237\230\200 na\303\257ve  two\n' >"$work/lines"
    ok tokenize --model "$folder" <"$work/lines"
    cp "$out" "$work/ids"
    ok tokenize --model "$folder" --decode <"$work/ids"
    same "$(cat "$out")" "$(cat "$work/lines")" "$folder"
    n=$((n + 1))
done
[ "$n" -ge 3 ] || fail "only $n tokenizers found"

# An empty line has no ids; no lines, no output; a last line without its end is a line.
printf '\n' >"$work/lines"
ok tokenize --model "$model" <"$work/lines"
same "$(wc -c <"$out" | tr -d ' ')" 1
ok tokenize --model "$model" </dev/null
same "$(wc -c <"$out" | tr -d ' ')" 0
printf 'red kettle' >"$work/lines"
ok tokenize --model "$model" <"$work/lines"
same "$(cat "$out")" "468 67 579"

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
fails tokenize --model "$work" <"$work/lines"
err_has "tokenizer.json"
