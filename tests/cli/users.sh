#!/bin/sh
# users.sh - users through a trained user encoder: made, encoded, ranked.
# SPDX-License-Identifier: Apache-2.0
. "$(dirname "$0")/lib.sh"

cat >"$work/spec.json" <<'EOF'
{"format": 1, "name": "shop", "version": "7", "mode": "mixed", "max_length": 256,
 "prefix": ["Query: ", {"field": "query", "truncate": true}, {"slot": "user", "when": "user"}],
 "suffix": [{"slot": "item"}, {"token": "<|endoftext|>"}],
 "score": {"yes": "yes", "no": "no"},
 "encoders": {"item": {"kind": "causal_last_n", "tokens": 1, "text": [{"field": "text"}]},
              "user": {"kind": "history"}}}
EOF
parts="--llm $DATA/mixed/llm --item-encoder $DATA/mixed/encoder"
items=$DATA/fixture/items.jsonl
users=$DATA/fixture/users.jsonl
n_users=$(wc -l <"$users" | tr -d ' ')
b=$work/b
s=$work/s

it "makes a bundle with a user encoder"
# shellcheck disable=SC2086  # several words
ok bundle create --spec "$work/spec.json" $parts --user-encoder "$DATA/training/user" "$b"
ok bundle golden "$b"
ok bundle verify "$b"
[ -e "$b/user/config.json" ] || fail "no user/config.json"
# shellcheck disable=SC2086
fails bundle create --spec "$work/spec.json" $parts --user-encoder "$DATA/training/user-sequence" \
    "$work/c"
err_has "item_dim is 10"

it "encodes users into the encoder's tokens"
ok encode -b "$b" -s "$s" -i "$items" -u "$users" --exact --dtype f32 --json
same "$(json lines encoded | sed -n 2p)" "$n_users"

it "ranks a stored user as the history that it was made from"
user_line=$(sed -n 1p "$users")
history=${user_line#*\"history\":}
history=${history%\}}
printf '{"query":"a light at night","user":"ada"}\n{"query":"a light at night","history":%s}\n%s\n' \
    "$history" '{"query":"a light at night"}' >"$work/requests.jsonl"
ok rank -b "$b" -s "$s" --requests "$work/requests.jsonl" -k 0 --json
stored=$(sed -n 1p "$out" | sed 's/.*"items"/"items"/')
made=$(sed -n 2p "$out" | sed 's/.*"items"/"items"/')
anonymous=$(sed -n 3p "$out" | sed 's/.*"items"/"items"/')
[ -n "$stored" ] || fail "no items in the reply"
same "$stored" "$made"
[ "$stored" != "$anonymous" ] || fail "the user makes no difference"

it "refuses an encoder that was damaged"
printf 'x' >>"$b/user/model.safetensors"
fails bundle verify "$b"
err_has "user/model.safetensors"
