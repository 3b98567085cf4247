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

# ---- create, golden, verify, show ----

# shellcheck disable=SC2086  # several words
ok bundle create --spec "$work/spec.json" $parts "$work/b" --json
json_valid
same "$(json "done") $(json name) $(json version) $(json mode) $(json untrained)" "created shop 7 mixed false"
out_lacks "$notice"
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

# A second one of the same parts has the same spaces, and can be linked.
# shellcheck disable=SC2086
ok bundle create --spec "$work/spec.json" $parts --link "$work/again" --json
same "$(json item_space)" "$space"

# shellcheck disable=SC2086
fails bundle create --spec "$work/spec.json" $parts "$work/b"
err_has "'$work/b' is already there; --force replaces it"
# shellcheck disable=SC2086
ok bundle create --spec "$work/spec.json" $parts --force "$work/b"

# ---- what is wrong is told once, and leaves nothing behind ----

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

# A weight that changed is found by its digest, and by the golden requests.
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

# ---- a reranker as downloaded ----

ok bundle from-reranker "$DATA/reranker" "$work/reranker" --max-length 512 --json
json_valid
same "$(json mode) $(json name) $(json item_space)" "text reranker none"
ok bundle golden "$work/reranker"
ok bundle verify "$work/reranker"

# ---- untrained ----

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
ok bundle show "$work/u3"
out_has "$notice"
ok bundle verify "$work/u3"
