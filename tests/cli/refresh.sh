#!/bin/sh
# refresh.sh - a store filled from Kafka: the same as one filled from files. On a mock cluster.
# SPDX-License-Identifier: Apache-2.0
. "$(dirname "$0")/lib.sh"

cat >"$work/spec.json" <<'END'
{"format": 1, "name": "shop", "version": "7", "mode": "mixed", "max_length": 256,
 "prefix": ["Query: ", {"field": "query", "truncate": true}, {"slot": "user", "when": "user"}],
 "suffix": [{"slot": "item"}, {"token": "<|endoftext|>"}],
 "score": {"yes": "yes", "no": "no"},
 "encoders": {"item": {"kind": "causal_last_n", "tokens": 1, "text": [{"field": "text"}]},
              "user": {"kind": "history"}}}
END
items=$DATA/fixture/items.jsonl
users=$DATA/fixture/users.jsonl
n_items=$(wc -l <"$items" | tr -d ' ')
n_users=$(wc -l <"$users" | tr -d ' ')
b=$work/b
ok bundle create --spec "$work/spec.json" --llm "$DATA/mixed/llm" \
    --item-encoder "$DATA/mixed/encoder" --user-encoder "$DATA/training/user" "$b"
ok bundle golden "$b"

it "says what is missing or wrong"
misuse refresh -s "$work/s" -k localhost:1 --items items
err_has "--bundle is missing"
misuse refresh -b "$b" -s "$work/s" -k localhost:1
err_has "a topic (--items"
misuse refresh -b "$b" -s "$work/s" -k localhost:1 --items items --from yesterday
err_has "--from is 'yesterday', expected earliest, latest or a time"
misuse refresh -b "$b" -s "$work/s" -k localhost:1 --items items --kafka x
err_has "--kafka is 'x', expected NAME=VALUE"
fails refresh -b "$b" -s "$work/s" -k localhost:1 --items items --kafka enable.auto.commit=true
err_has "is the refresher's own"
fails refresh -b "$b" -s "$work/s" -k localhost:1 --items a --item-embeddings a
err_has "topic 'a' is named twice"
ok bundle from-reranker "$DATA/reranker" "$work/text"
fails refresh -b "$work/text" -s "$work/s" -k localhost:1 --items items
err_has "ranks text"

# What a log may hold: everything, some of it twice, something removed, something broken.
{
    sed 's/^/items	/' "$items"
    sed 's/^/items	/' "$items" | head -n 5
    printf 'items\t{"id":"doomed","text":"here for a moment"}\nitems\t!doomed\n'
    printf 'items\tbroken\nitems\t{"id":"silent"}\n'
    sed 's/^/user-events	/' "$users"
    printf 'user-events\t{"id":"new","history":[]}\n'
    printf 'user-events\t{"id":"odd","history":["nothing","we","know"]}\n'
} >"$work/messages"
mkfifo "$work/hold"
"$KAFKAMOCK" "$work/messages" <"$work/hold" >"$work/address" &
children="$children $!"
exec 9>"$work/hold"
for _ in $(seq 300); do
    [ ! -s "$work/address" ] || break
    sleep 0.1
done
brokers=$(cat "$work/address")
[ -n "$brokers" ] || fail "no mock cluster"

# A member that left is forgotten by the mock when its session ends.
quick="--kafka session.timeout.ms=5000 --kafka heartbeat.interval.ms=500"

it "fills a store to the end of the topics, items before users"
# shellcheck disable=SC2086
ok refresh -b "$b" -s "$work/s" -k "$brokers" --items items $quick --until-end --exact --dtype f32 \
    --json --log json --metrics-file "$work/metrics" --fast-writes
json_valid
same "$(json consumed)" $((n_items + 9))
# Of one key in one batch the newest is written, the others are stale.
same "$(($(json written) + $(json stale)))" $((n_items + 7))
same "$(json dead_letters)" 2
same "$(json tombstones)" 1
grep -v "$notice" "$err" >"$work/lines" || true
"$JSONCHECK" lines event <"$work/lines" >"$work/events" || fail "the log is not JSON lines"
grep -q 'messages rejected' "$work/events" || fail "nothing tells of the rejected messages"
grep -q '^mixrank_refresh_messages_total{topic="items",outcome="dead_letter"} 2$' "$work/metrics" ||
    fail "metrics lack the dead letters: $(grep messages_total "$work/metrics")"
grep -q '^mixrank_refresh_lag{topic="items",partition="0"}' "$work/metrics" ||
    fail "metrics lack the lag"
# shellcheck disable=SC2086
ok refresh -b "$b" -s "$work/s" -k "$brokers" --user-events user-events $quick --until-end --exact \
    --dtype f32 --json
same "$(json written) $(json dead_letters)" "$((n_users + 1)) 1"
err_has "none of the 3 items of the history is in the store"

it "gives the store that encode gives"
ok encode -b "$b" -s "$work/t" -i "$items" -u "$users" --exact --dtype f32
for store in s t; do
    ok rank -b "$b" -s "$work/$store" -i "$items" -q "a light at night" --user ada -k 0 --json
    json_valid
    json items >"$work/$store.items"
done
cmp -s "$work/s.items" "$work/t.items" || fail "rankings differ"

it "goes on where it was"
# shellcheck disable=SC2086
ok refresh -b "$b" -s "$work/s" -k "$brokers" --items items $quick --until-end
out_has "0 messages read"

it "leaves when it is told to"
# shellcheck disable=SC2086
"$MIXRANK" refresh -b "$b" -s "$work/u" -k "$brokers" --items items $quick --group other \
    --json >"$out" 2>"$err" &
child=$!
children="$children $child"
for _ in $(seq 300); do
    ! grep -q 'messages rejected' "$err" || break
    sleep 0.1
done
sleep 0.5
kill -TERM "$child"
status=0
wait "$child" || status=$?
same "$status" 0 "exit status after SIGTERM"
same "$(json dead_letters)" 2

it "waits for brokers that are away, and leaves when it is told to"
"$MIXRANK" refresh -b "$b" -s "$work/v" -k 127.0.0.1:1 --items items >"$out" 2>"$err" &
child=$!
children="$children $child"
sleep 2
kill -TERM "$child"
status=0
wait "$child" || status=$?
same "$status" 0 "exit status after SIGTERM"
err_has "127.0.0.1:1"
out_has "0 messages read"
