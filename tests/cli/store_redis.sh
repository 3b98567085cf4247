#!/bin/sh
# store_redis.sh - mixrank store against a real Redis: there and back, signed in by the environment,
# a value that another program left under our keys, and a bundle that is switched there.
# SPDX-License-Identifier: Apache-2.0
. "$(dirname "$0")/lib.sh"

server=${REDIS_SERVER:-redis-server}
command -v "$server" >/dev/null && command -v redis-cli >/dev/null || {
    echo "skipped: there is no redis-server and redis-cli"
    exit 77
}
sock=$work/redis.sock
"$server" --port 0 --unixsocket "$sock" --requirepass sesame --save "" --dir "$work" \
    >"$work/redis.log" 2>&1 &
children=$!
tries=0
until [ "$(redis-cli -s "$sock" -a sesame --no-auth-warning ping 2>/dev/null)" = PONG ]; do
    tries=$((tries + 1))
    [ "$tries" -lt 100 ] || {
        cat "$work/redis.log"
        exit 1
    }
    sleep 0.1
done
redis()
{
    redis-cli -s "$sock" -a sesame --no-auth-warning "$@" >/dev/null
}

items=$DATA/fixture/items.jsonl
users=$DATA/fixture/users.jsonl
n_items=$(wc -l <"$items" | tr -d ' ')
n_users=$(wc -l <"$users" | tr -d ' ')
n=$((n_items + n_users))
first=$("$JSONCHECK" lines id <"$items" | sed -n 1p)
b=$work/bundle
s=$work/store
r=redis+unix:$sock
ok bundle untrained --item-tokens 2 "$b"
ok encode -b "$b" -s "$s" -i "$items" -u "$users"
ok bundle show --json "$b"
space=$(json item_space)

it "is told when the password is missing or wrong, and never shows one"
fails store stat -s "$r"
err_has "password"
fails store stat -s "$r" --password wrong-one
err_lacks wrong-one
fails store stat -s "redis+unix://default:wrong-two@$sock"
err_lacks wrong-two
printf 'sesame\n' >"$work/password"
MIXRANK_STORE__PASSWORD_FILE=$work/password
export MIXRANK_STORE__PASSWORD_FILE
ok store stat -s "$r"
unset MIXRANK_STORE__PASSWORD_FILE
MIXRANK_STORE__PASSWORD=sesame
export MIXRANK_STORE__PASSWORD

it "copies to Redis and back, record by record the same"
ok store copy "$s" "$r" --json --batch 7
same "$(json written) $(json stale)" "$n 0"
ok store copy "$s" "$r" --json
same "$(json written) $(json stale)" "0 $n"
ok store verify -s "$r"
out_has "$n records, 0 damaged"
ok store stat -s "$r" --json
same "$(json backend) $(json spaces.0.records) $(json spaces.1.records)" "redis $n_items $n_users"
ok store copy "$s" "file:$work/lmdb.mrs"
ok store copy "$r" "file:$work/redis.mrs"
cmp -s "$work/lmdb.mrs" "$work/redis.mrs" || fail "the records of the two stores differ"
ok store get -s "$r" "$first" --json
same "$(json found)" true

it "is looked at by check, signed in by the environment too"
ok check -b "$b" -s "$r"
out_has redis

it "encodes into Redis, and ranks from it by the bundle that is active there"
ok encode -b "$b" -s "$r" -i "$items" -u "$users" --json
ok store switch -b "$b" -s "$r"
ok rank -b "$b" -s "$s" -q lamp -k 0 --json
cp "$out" "$work/ranked"
ok rank -s "$r" -q lamp -k 0 --json
same "$(json scored) $(json bundle)" "$n_items $("$JSONCHECK" bundle <"$work/ranked")"

it "finds what another program left under our keys"
redis set "mixrank:item:$space:$first" garbage
run store verify -s "$r"
same "$status" 1
out_has "item:$space:$first"
out_has "$n records, 1 damaged"
run store copy "$r" "$work/back" --json
same "$status" 1
same "$(json damaged) $(json written)" "1 $((n - 1))"
err_has "not copied: $first"
ok store copy "$s" "$r" --json
same "$(json written)" 1
ok store verify -s "$r"

it "removes a space"
ok store remove -s "$r" --space "$space" --force --yes --json
same "$(json records)" "$n_items"
ok store stat -s "$r" --json
same "$(json spaces.0.entity) $(json spaces.0.records)" "user $n_users"
