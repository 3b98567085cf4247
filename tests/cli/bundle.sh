#!/bin/sh
# bundle.sh - making, checking and showing bundles.
# SPDX-License-Identifier: Apache-2.0
. "$(dirname "$0")/lib.sh"

cat >"$work/spec.json" <<'EOF'
{"format": 1, "name": "shop", "version": "7", "mode": "mixed", "max_length": 256,
 "prefix": ["Query: ", {"field": "query", "truncate": true}, {"slot": "user", "when": "user"}],
 "suffix": [{"slot": "item"}, {"token": "<|endoftext|>"}],
 "score": {"yes": "yes", "no": "no"},
 "encoders": {"item": {"kind": "causal_last_n", "tokens": 3, "text": [{"field": "text"}]},
              "user": {"kind": "history", "tokens": 4}}}
EOF
parts="--llm $DATA/mixed/llm --item-encoder $DATA/mixed/encoder"

it "creates, seals with golden requests, verifies and shows a bundle"

# shellcheck disable=SC2086  # several words
ok bundle create --spec "$work/spec.json" $parts "$work/b" --json
json_valid
same "$(json "done") $(json name) $(json version) $(json mode) $(json untrained)" "created shop 7 mixed false"
out_lacks "$notice"
err_empty
same "$(json bundle)" "$work/b"
space=$(json item_space)
ok bundle golden --make 3 "$work/b"
out_has "golden requests written for $work/b"
ok bundle verify "$work/b" --json
json_valid
same "$(json "done") $(json item_space)" "verified $space"
ok bundle show "$work/b"
out_has "shop 7, mixed mode"
out_has "$space, up to 3 tokens of 32"
out_has "up to 4 items"
out_has "identity"
ok bundle show "$work/b" --json
json_valid
same "$(json suffix.0.slot)" item
ok check -b "$work/b"
out_has "golden        passed"

it "gives the same parts the same spaces, copied or linked"
# shellcheck disable=SC2086
ok bundle create --spec "$work/spec.json" $parts --link "$work/again" --json
same "$(json item_space)" "$space"

# shellcheck disable=SC2086
fails bundle create --spec "$work/spec.json" $parts "$work/b"
err_has "'$work/b' is already there; --force replaces it"
# shellcheck disable=SC2086
ok bundle create --spec "$work/spec.json" $parts --force "$work/b"

it "stores the weights in another type, half the size"
# shellcheck disable=SC2086
ok bundle create --spec "$work/spec.json" $parts --dtype f32 "$work/wide" --json
# shellcheck disable=SC2086
ok bundle create --spec "$work/spec.json" $parts --dtype bf16 "$work/half" --json
ok bundle verify "$work/half"
whole=$(wc -c <"$work/wide/llm/model.safetensors") half=$(wc -c <"$work/half/llm/model.safetensors")
[ "$half" -lt $((whole * 6 / 10)) ] || fail "$half bytes of $whole"

it "tells once what is wrong, and leaves nothing behind"

before=$(ls "$work")
sed 's/"prefix"/"prefx"/' "$work/spec.json" >"$work/bad"
# shellcheck disable=SC2086
fails bundle create --spec "$work/bad" $parts "$work/c"
err_has "unknown key 'prefx'; did you mean 'prefix'?"
echo '{' >"$work/bad"
# shellcheck disable=SC2086
fails bundle create --spec "$work/bad" $parts "$work/c"
err_has "$work/bad"
fails bundle create --spec "$work/spec.json" --llm "$DATA/mixed/llm" "$work/c"
err_has "no folder with its model was given"
fails bundle from-reranker "$work/nowhere" "$work/c"
err_has "model folder '$work/nowhere' is not there"
fails bundle untrained --item-tokens 50 --user-tokens 256 "$work/c"
err_has "256 items of up to 50 tokens are more than the 1024 that a user may have"
rm "$work/bad"
same "$(ls "$work")" "$before" "what was left behind"

it "finds a weight that changed by its digest, and by the golden requests"
ok bundle golden "$work/b"
size=$(wc -c <"$work/b/llm/model.safetensors" | tr -d ' ')
printf '\300\100' | dd of="$work/b/llm/model.safetensors" bs=1 seek=$((size - 2)) conv=notrunc 2>/dev/null
fails bundle verify "$work/b"
err_has "'llm/model.safetensors' has SHA-256"
fails check -b "$work/b"
err_has "golden request"
fails rank -b "$work/b" -s "$work/none" -q x
err_has "golden request"
fails bundle show "$work/nowhere"
err_has "no bundle.json there; is it a bundle folder?"

it "makes a bundle of a reranker as downloaded"

ok bundle from-reranker "$DATA/reranker" "$work/reranker" --max-length 512 --json
json_valid
same "$(json mode) $(json name) $(json item_space)" "text reranker none"
ok bundle golden "$work/reranker"
ok bundle verify "$work/reranker"

it "says of untrained weights that they are, in every output"

ok bundle untrained "$work/u" --seed 5 --json
json_valid
same "$(json notice) $(json untrained)" "$notice true"
err_has "$notice"
space=$(json item_space)
ok bundle untrained "$work/u2/" --seed 5 --json
same "$(json item_space)" "$space" "the same seed"
ok bundle untrained "$work/u3" --seed 6
out_has "created $work/u3 ($notice)"
ok bundle show "$work/u3" --json
[ "$(json item_space)" != "$space" ] || fail "another seed, the same space"
same "$(json notice)" "$notice"
err_has "$notice"
ok bundle show "$work/u3"
out_has "$notice"
err_has "$notice"
ok bundle verify "$work/u3"
out_has "$notice"
err_has "$notice"
ok bundle golden "$work/u3" --json
same "$(json notice)" "$notice"
err_has "$notice"
ok check -b "$work/u3" --json
same "$(json notice)" "$notice"
err_has "$notice"

it "writes golden requests from a file, and names the line of a broken one"
vector()
{
    awk -v at="$1" -v n=64 'BEGIN { for (k = 0; k < n; k++) printf "%s%d", k ? "," : "[", k == at; print "]" }'
}
printf '{"fields":{"query":"red kettle"},"candidates":[{"vectors":[%s]},{"vectors":[%s]}]}\n' \
    "$(vector 0)" "$(vector 1)" >"$work/requests.jsonl"
ok bundle golden --requests "$work/requests.jsonl" "$work/u3"
same "$("$JSONCHECK" requests.0.fields.query <"$work/u3/golden.json")" "red kettle"
same "$("$JSONCHECK" 'requests.*.margins' <"$work/u3/golden.json" | wc -l | tr -d ' ')" 1
ok bundle verify "$work/u3"
cp "$work/u3/golden.json" "$work/golden.json"
for line in '{' '{"fields":{"query":7},"candidates":[]}' '{"fields":{"query":"x"},"candidates":[{"vectors":[[1]]}]}'; do
    printf '%s\n' "$line" >"$work/wrong.jsonl"
    fails bundle golden --requests "$work/wrong.jsonl" "$work/u3"
done
fails bundle golden --requests "$work/nowhere.jsonl" "$work/u3"
cmp -s "$work/golden.json" "$work/u3/golden.json" || fail "a failure changed golden.json"

it "names a file whose one byte was flipped, wherever it is, and a file that is gone"
flip()
{
    cp "$1" "$work/whole"
    byte=$(od -An -tu1 -j "$2" -N 1 "$1" | tr -d ' ')
    printf "\\$(printf %o $((byte ^ 1)))" | dd of="$1" bs=1 seek="$2" conv=notrunc 2>/dev/null
    cmp -s "$1" "$work/whole" && fail "nothing was flipped"
    return 0
}
for part in llm/model.safetensors encoder/model.safetensors llm/tokenizer.json llm/config.json; do
    file=$work/u3/$part
    size=$(wc -c <"$file" | tr -d ' ')
    for at in 0 $((size / 2)) $((size - 1)); do
        flip "$file" "$at"
        fails bundle verify "$work/u3"
        err_has "$part"
        cp "$work/whole" "$file"
    done
    mv "$file" "$work/gone"
    fails bundle verify "$work/u3"
    err_has "$part"
    mv "$work/gone" "$file"
done
ok bundle verify "$work/u3"

it "never replaces a folder that is no bundle, nor a pipe"
mkdir "$work/precious"
echo thesis >"$work/precious/thesis"
fails bundle untrained --force "$work/precious"
err_has "is no bundle (no bundle.json in it); only bundles are replaced"
same "$(cat "$work/precious/thesis")" thesis
mkfifo "$work/pipe"
fails bundle untrained --force "$work/pipe"
[ -p "$work/pipe" ] || fail "the pipe is gone"
disk_full bundle show "$work/u3"
