#!/bin/sh
# store.sh - mixrank store: looking into a store, copies between stores and files, and moving from
# one bundle's spaces to another's.
# SPDX-License-Identifier: Apache-2.0
. "$(dirname "$0")/lib.sh"

items=$DATA/fixture/items.jsonl
users=$DATA/fixture/users.jsonl
n_items=$(wc -l <"$items" | tr -d ' ')
n_users=$(wc -l <"$users" | tr -d ' ')
first=$("$JSONCHECK" lines id <"$items" | sed -n 1p)
b1=$work/b1
b2=$work/b2
s=$work/store
ok bundle untrained --item-tokens 2 "$b1"
ok bundle untrained --item-tokens 1 --seed 9 "$b2"
ok encode -b "$b1" -s "$s" -i "$items" -u "$users"
ok bundle show --json "$b1"
space1=$(json item_space)
users1=$(json user_space)
ok bundle show --json "$b2"
space2=$(json item_space)
[ "$space1" != "$space2" ] || fail "the two bundles have one space"

it "explains itself and refuses what is wrong"
misuse store
err_has "coverage"
misuse store gte
err_has "did you mean 'get'?"
misuse store get -s "$s"
err_has "give the ids"
misuse store get "$first"
err_has "--store is missing"
misuse store copy "$s"
err_has "give FROM and TO"
misuse store copy file:a file:b
err_has "one of the two must be a store"
misuse store remove -s "$s"
err_has "give either --space or --retired"
fails store get -s "$work/nowhere" x
err_has "$work/nowhere"
fails store get -s "$s" --space 12 x
err_has "12"
[ ! -e "$work/nowhere" ] || fail "a store was made by looking for it"

it "shows records"
ok store get -s "$s" "$first"
out_has "$first: 2 x 64 bf16, version 1"
out_has "space $space1"
out_has "token 1  norm "
ok store get -s "$s" -b "$b1" "$first" --json --values 3
same "$(json found) $(json tokens) $(json dtype) $(json version) $(json space)" \
    "true 2 bf16 1 $space1"
same "$(json values.0 | tr ',' '\n' | wc -l | tr -d ' ')" 3
run store get -s "$s" "$first" nobody --json
same "$status" 1
same "$(json lines found | tr '\n' ' ')" "true false "
ok store get -s "$s" --raw "$first"
same "$(head -c 4 "$out")" MRE1
same "$(wc -c <"$out" | tr -d ' ')" $((48 + 2 * 64 * 2))
run store get -s "$s" -e user "$first"
same "$status" 1
out_has "$first: no record"
disk_full store get -s "$s" "$first"

it "counts what is there"
ok store stat -s "$s" -b "$b1"
out_has "item $space1  (the bundle's items)"
out_has "user $users1  (the bundle's users)"
out_has "bf16 $n_items"
ok store stat -s "$s" --json
same "$(json spaces.0.space) $(json spaces.0.records) $(json spaces.0.tombstones)" \
    "$space1 $n_items 0"
same "$(json spaces.0.shapes.2x64) $(json spaces.1.records)" "$n_items $n_users"
same "$(json records)" $((n_items + n_users))

it "verifies every record"
ok store verify -s "$s"
out_has "$((n_items + n_users)) records, 0 damaged"
ok store verify -s "$s" --json
same "$(json damaged)" 0

it "copies to a file and back"
ok store copy "$s" "file:$work/all.mrs" --json
same "$(head -c 8 "$work/all.mrs")" MRSTORE1
ok store copy "file:$work/all.mrs" "$work/copy" --json
same "$(json written) $(json stale) $(json damaged)" "$((n_items + n_users)) 0 0"
ok store copy "file:$work/all.mrs" "$work/copy" --json
same "$(json written) $(json stale)" "0 $((n_items + n_users))"
ok store copy "$work/copy" - --quiet
cp "$out" "$work/again.mrs"
cmp -s "$work/all.mrs" "$work/again.mrs" || fail "the copy of the copy differs"
last="store copy - $work/piped"
"$MIXRANK" store copy --entity user - "$work/piped" --json <"$work/all.mrs" >"$out" 2>"$err" ||
    fail "a copy from standard input failed"
same "$(json written) $(json skipped)" "$n_users $n_items"
ok rank -b "$b1" -s "$s" -q lamp -k 0 --json
cp "$out" "$work/ranked"
ok rank -b "$b1" -s "$work/copy" -q lamp -k 0 --json
same "$(json items)" "$("$JSONCHECK" items <"$work/ranked")"

it "copies from store to store, by space and prefix, and goes on where it was"
ok store copy "$s" "$work/part" --space "$space1" --prefix "$first" --json
same "$(json written)" 1
ok store copy "$s" "$work/part" --entity item --resume --json
same "$(json written) $(json stale)" "$((n_items - 1)) 1"
# As a copy that was killed after its first batches leaves it: see test_record_file.c for files.
ok store copy "$s" "$work/small" --map-gb 0.5 --batch 1

it "says what is wrong with a file, and keeps what it could read"
head -c 1000 "$work/all.mrs" >"$work/cut.mrs"
fails store copy "file:$work/cut.mrs" "$work/from_cut"
err_has "it was cut short"
ok store stat -s "$work/from_cut" --json
[ "$(json records)" -gt 0 ] || fail "nothing of the file that was cut short is there"
fails store copy "file:$items" "$work/from_json"
err_has "is no file of records"
[ ! -e "$work/from_json" ] || fail "a store was made for a file that is none"
fails store copy "file:$work/nothing.mrs" "$work/from_nothing"
err_has "nothing.mrs"
fails store copy "$s" "file:$work/no/such/folder/x.mrs"
err_has "no/such/folder"

it "tells of a full store and a full disk"
make_items 20000 >"$work/many.jsonl"
ok encode -b "$b2" -s "$work/many" -i "$work/many.jsonl" --quiet
fails store copy "$work/many" "$work/full" --map-gb 0.002
err_has "with --map-gb 0.002"
ok store verify -s "$work/full"
ok store copy "$work/many" "$work/full" --map-gb 1 --resume --json
[ "$(json skipped)" -gt 0 ] || fail "a copy that is resumed began anew"
same "$(($(json written) + $(json skipped)))" 20000
[ ! -c /dev/full ] || {
    last="store copy $work/many - >/dev/full"
    status=0
    "$MIXRANK" store copy "$work/many" - >/dev/full 2>"$err" || status=$?
    same "$status" 1
    err_has "standard output"
}

it "has no active bundle at first"
fails store active -s "$s"
err_has "names no active bundle"
fails store rollback -s "$s"
err_has "nothing was switched"
fails store coverage -b "$b2" -s "$s"
err_has "--against"
fails store remove -s "$s" --retired --yes
err_has "names no active bundle"
fails rank -s "$s" -q lamp
err_has "mixrank store switch"

it "makes a bundle the active one, and ranks with it"
ok store switch -b "$b1" -s "$s" --json
same "$(json generation) $(json bundle.item_space)" "1 $space1"
ok rank -s "$s" -q lamp -k 0 --json
same "$(json items)" "$("$JSONCHECK" items <"$work/ranked")"
fails store switch -b "$b1" -s "$s"
err_has "is active already, since generation 1"

it "reports how much of the next space is there, and refuses to switch too early"
run store coverage -b "$b2" -s "$s" --json
same "$status" 1
same "$(json empty) $(json item.missing) $(json share)" "true $n_items 0.0"
fails store switch -b "$b2" -s "$s"
err_has "no item at all"
half=$((n_items / 2))
head -n "$half" "$items" >"$work/half.jsonl"
ok encode -b "$b2" -s "$s" -i "$work/half.jsonl"
run store coverage -b "$b2" -s "$s" --against "$b1" --list 2
same "$status" 1
out_has "of $n_items ids $half there"
out_has "  missing  "
out_has "and $((n_items - half - 2)) more"
err_has "is under --min 0.99"
ok store coverage -b "$b2" -s "$s" --min 0
fails store switch -b "$b2" -s "$s" --min 0.6
err_has "nothing was switched"
ok store active -s "$s" --json
same "$(json generation)" 1

it "ranks whole with the previous bundle what the active one knows too little of"
ok store switch -b "$b2" -s "$s" --force --json
same "$(json generation) $(json bundle.item_space) $(json previous.item_space)" \
    "2 $space2 $space1"
ids=$("$JSONCHECK" lines id <"$items" | tail -n 4 | tr '\n' ',')
ok rank -s "$s" -q lamp -c "$ids" -k 0 --json
same "$(json by_previous) $(json scored) $(json degraded)" 'true 4 ["low_coverage"]'
ok rank -b "$b1" -s "$s" -q lamp -c "$ids" -k 0 --json
cp "$out" "$work/old"
ok rank -s "$s" -q lamp -c "$ids" -k 0 --json
same "$(json items)" "$("$JSONCHECK" items <"$work/old")"
ok rank -s "$s" -q lamp -c "$first,nobody" -k 0 --json
same "$(json scored) $(json degraded)" "1 []"

it "rolls back and goes forward again"
ok store rollback -s "$s" --json
same "$(json generation) $(json bundle.item_space)" "3 $space1"
ok encode -b "$b2" -s "$s" -i "$items" -u "$users"
ok store coverage -b "$b2" -s "$s" --json
same "$(json share) $(json item.missing) $(json user.missing)" "1.0 0 0"
ok store switch -b "$b2" -s "$s"
out_has "generation 4"
ok store rollback -s "$s"
ok store rollback -s "$s"
out_has "generation 6"

it "removes what no bundle reads, and only that"
run store remove -s "$s" --retired
same "$status" 1
same "$(wc -c <"$out" | tr -d ' ')" 0 # both bundles are named
fails store remove -s "$s" --space "$space1" --yes
err_has "which is the previous one"
b3=$work/b3
ok bundle untrained --item-tokens 1 --seed 10 "$b3"
ok encode -b "$b3" -s "$s" -i "$items" -u "$users"
ok store switch -b "$b3" -s "$s"
run store remove -s "$s" --retired
same "$status" 1
out_has "would remove item space $space1"
err_has "nothing was removed"
ok store remove -s "$s" --retired --yes
out_has "removed $n_items records of item space $space1"
out_has "removed $n_users records of user space $users1"
ok store stat -s "$s" --json
same "$(json records)" $((2 * (n_items + n_users)))
ok store remove -s "$s" --space "$space2" --yes --force --json
same "$(json records)" "$n_items"

it "never shows a password"
MIXRANK_STORE__PASSWORD=sesame
export MIXRANK_STORE__PASSWORD
run store get -s redis://user:open@127.0.0.1:1/0 x
same "$status" 1
err_lacks sesame
err_lacks open@
unset MIXRANK_STORE__PASSWORD
