#!/bin/sh
# evaluate.sh - a catalogue of our own measured from the command line: figures against a count of
# their own, splits, variants of a bundle, the order that serving gives, runs, pages, bad input.
# SPDX-License-Identifier: Apache-2.0
. "$(dirname "$0")/lib.sh"

c=$work/catalogue
mkdir -p "$c/qrels"
cp "$DATA/fixture/items.jsonl" "$c/items.jsonl"
sed 's/"text":"/"text":"Quiet keyboard for shared rooms. /' "$c/items.jsonl" >"$c/other.jsonl"

# row ID TASK SPLIT QUERY USER HISTORY CANDIDATES SAME_FAMILY; lists of ids apart by blanks.
list()
{
    echo "$1" | sed 's/  */","/g; s/^/["/; s/$/"]/'
}
row()
{
    printf '{"id":"%s","task":"%s","split":"%s","query":"%s","user":"%s","history":%s,' \
        "$1" "$2" "$3" "$4" "$5" "$(list "$6")"
    printf '"candidates":%s,"same_family":%s}\n' "$(list "$7")" "$8"
}
desk="lamp-salt lamp-head lamp-desk book-stars screen-arm calc-solar keyboard-quiet tent-one"
keys="keyboard-click mouse-left keyboard-split keyboard-quiet pad-wrist earplugs mic-podcast"
camp="tent-one stove-wood filter-water bag-down knife-pocket tea-sencha lamp-head calc-rpn"
photo="cam-night tripod-light lens-macro book-stars"
{
    row s1 search test "light for reading at a desk" ann "$photo" "$desk" false
    row s2 search test "keyboard that does not disturb others" ann "$photo" "$keys" true
    row s3 search test "water" ben "calc-solar mouse-ball" "$camp" false
    row s4 search valid "desk lamp" cid "mouse-left pad-wrist" "$desk" false
    row s5 search train "keyboard for left hands" dee "calc-solar mouse-ball" "$keys" false
    row s6 search train "knife" dee "stove-wood" "$camp" false
    row b1 basket test "" ann "$photo" "$desk" true
    row b2 basket test "" ben "calc-solar mouse-ball" "$camp" false
    echo '{"id":"k1","task":"known","split":"test","query":"camera with a large sensor"}'
} >"$c/queries.jsonl"
printf '%s\n' "s1 0 lamp-desk 3" "s1 0 lamp-head 1" "s1 0 lamp-salt 0" "s2 0 keyboard-quiet 3" \
    "s2 0 keyboard-split 1" "s2 0 earplugs 1" "s3 0 filter-water 3" "s3 0 tea-sencha 1" \
    "s4 0 lamp-desk 3" "s4 0 lamp-head 1" "s5 0 mouse-left 3" "s5 0 keyboard-split 1" \
    "s6 0 knife-pocket 3" >"$c/qrels/search.txt"
printf '%s\n' "b1 0 book-stars 1" "b2 0 tent-one 1" >"$c/qrels/basket.txt"
printf '%s\n' "k1 0 cam-night 1" >"$c/qrels/known.txt"

mean()
{
    "$JSONCHECK" "tasks.$1.systems.$2.means.$3" <"$out"
}

it "measures baselines on every task"
ok evaluate -c "$c" -T search,basket,known -s random -s bm25 -s tfidf -s sum -s linear
out_has "search, split test: 3 rows of 2 people, 8 candidates each"
out_has "known, split test: 1 rows, $(wc -l <"$c/items.jsonl" | tr -d ' ') candidates each"
out_has "nothing to go by"
err_empty
ok evaluate -c "$c" -T search,basket,known -s random -s bm25 -s tfidf --against random --json
json_valid
same "$(json tasks.0.rows) $(json tasks.0.people) $(json tasks.2.people)" "3 2 0"
same "$(json tasks.1.systems.1.blank) $(json tasks.1.systems.2.blank)" "true false"
same "$(mean 2 1 success_best_10)" 1.0
same "$(json against)" random

it "counts as trec_eval does, by a count of its own"
ok evaluate -c "$c" -T search -s bm25 -s random -r "$work/runs" --json
same "$(ls "$work/runs" | tr '\n' ' ')" "search.bm25.run search.qrels search.random.run "
count()
{
    awk 'NR == FNR { grade[$1, $3] = $4; if ($4 > 0) { n[$1]++; g[$1, n[$1]] = $4 }; next }
        { place[$1]++; k = place[$1]; x = grade[$1, $3] + 0
          if (x > 0) { found[$1]++; ap[$1] += found[$1] / k
              if (!($1 in first)) first[$1] = 1 / k }
          if (k <= 10 && x > 0) { dcg[$1] += x / (log(k + 1) / log(2)); p[$1] += 0.1 } }
        END { for (q in place) { rows++; ideal = 0
                for (i = 1; i <= n[q]; i++) for (j = i + 1; j <= n[q]; j++)
                    if (g[q, j] > g[q, i]) { t = g[q, i]; g[q, i] = g[q, j]; g[q, j] = t }
                for (i = 1; i <= n[q] && i <= 10; i++)
                    ideal += g[q, i] / (log(i + 1) / log(2))
                ndcg += dcg[q] / ideal; map += ap[q] / n[q]; rr += first[q]; pre += p[q] }
            printf "%.9f %.9f %.9f %.9f\n", ndcg / rows, map / rows, rr / rows, pre / rows }' \
        "$work/runs/search.qrels" "$1"
}
i=0
for system in bm25 random; do
    same "$(printf '%.9f %.9f %.9f %.9f' "$(mean 0 $i ndcg_cut_10)" "$(mean 0 $i map)" \
        "$(mean 0 $i recip_rank)" "$(mean 0 $i P_10)")" \
        "$(count "$work/runs/search.$system.run")" "$system"
    i=$((i + 1))
done

it "measures the rows of one split, and no others"
same "$(awk '{ print $1 }' "$work/runs/search.bm25.run" | sort -u | tr '\n' ' ')" "s1 s2 s3 "
ok evaluate -c "$c" -T search -s bm25 -r "$work/valid" --split valid
same "$(awk '{ print $1 }' "$work/valid/search.bm25.run" | sort -u | tr '\n' ' ')" "s4 "
same "$(awk '{ print $1 }' "$work/valid/search.qrels" | sort -u | tr '\n' ' ')" "s4 "
ok evaluate -c "$c" -T search -s bm25 -r "$work/two" --limit 2
same "$(awk '{ print $1 }' "$work/two/search.bm25.run" | sort -u | tr '\n' ' ')" "s1 s2 "
fails evaluate -c "$c" -T known -s bm25 --split train
err_has "task 'known' has no rows of split train"

it "fits the linear ranker to split train alone"
sed 's/^s1 0 lamp-desk 3/s1 0 screen-arm 3/' "$c/qrels/search.txt" >"$work/qrels"
ok evaluate -c "$c" -T search -s linear -r "$work/fit"
cp "$c/qrels/search.txt" "$work/kept"
cp "$work/qrels" "$c/qrels/search.txt"
ok evaluate -c "$c" -T search -s linear -r "$work/refit"
cp "$work/kept" "$c/qrels/search.txt"
same "$(cksum <"$work/fit/search.linear.run")" "$(cksum <"$work/refit/search.linear.run")" \
    "labels of the test rows change nothing"
sed 's/^s5 0 mouse-left 3/s5 0 mouse-left 1/' "$work/kept" >"$c/qrels/search.txt"
ok evaluate -c "$c" -T search -s linear -r "$work/refit"
cp "$work/kept" "$c/qrels/search.txt"
[ "$(cksum <"$work/fit/search.linear.run")" != "$(cksum <"$work/refit/search.linear.run")" ] ||
    fail "the linear ranker did not look at its training rows"

it "takes baskets of training people alone, and of a cold task's test items none"
held()
{
    printf '{"id":"eve","fold":"%s","history":%s}\n' "$1" \
        "$(list "cam-night book-stars calc-solar filter-water tent-one")" >"$c/users.jsonl"
    ok evaluate -c "$c" -T search,basket -s co-occurrence --json
    rm "$c/users.jsonl"
    echo "$(json tasks.0.systems.0.blank) $(json tasks.1.systems.0.blank)"
}
same "$(held test)" "true true"
same "$(held valid)" "true true"
same "$(held train)" "false true" "basket has no rows of split train: its items are nobody's"
sed -i 's/"text":/"fold":"train","text":/' "$c/items.jsonl"
same "$(held train)" "false false"
cp "$DATA/fixture/items.jsonl" "$c/items.jsonl"

it "asks a bundle as serving does"
b=$work/bundle
ok bundle untrained --item-tokens 2 --seed 3 "$b"
ok encode -b "$b" -s "$work/store" -i "$c/items.jsonl"
ok evaluate -c "$c" -T search,basket -s "bundle:$b" -s "bundle:$b,no-user" -s "bundle:$b,no-query" \
    -s "dot:$b,name=late" -s "dot:$b,last,history=0,name=late query" -r "$work/b"
out_has untrained
err_has "$notice"
out_has "nothing to go by"
served()
{
    grep '"split":"test"' "$c/queries.jsonl" | grep '"task":"search"' | sed "$1" >"$work/r.jsonl"
    ok rank -b "$b" -s "$work/store" -i "$c/items.jsonl" -r "$work/r.jsonl" -k 0 --trec
    awk '{ print $1, $3, $4 }' "$out"
}
order_of()
{
    awk '{ print $1, $3, $4 }' "$1"
}
same "$(order_of "$work/b/search.bundle-bundle.run")" "$(served 's/"user":"[a-z]*",//')"
same "$(order_of "$work/b/search.bundle-bundle-no-user.run")" \
    "$(served 's/"user":"[a-z]*","history":[^]]*],//')"
same "$(order_of "$work/b/search.bundle-bundle-no-query.run")" \
    "$(served 's/"user":"[a-z]*",//; s/"query":"[^"]*"/"query":""/')"
[ "$(order_of "$work/b/search.late.run")" != "$(order_of "$work/b/search.late-query.run")" ] ||
    fail "the history changes nothing in dot"

it "takes vectors from a store, to the same run"
ok evaluate -c "$c" -T search -s "bundle:$b,store=$work/store" -r "$work/s"
same "$(order_of "$work/s/search.bundle-bundle.run")" \
    "$(order_of "$work/b/search.bundle-bundle.run")"
ok bundle untrained --item-tokens 1 --seed 4 "$work/other"
fails evaluate -c "$c" -T search -s "bundle:$work/other,store=$work/store"
err_has "the store has none of the"

it "blends with a prior, with a weight given or tuned on split valid"
ok evaluate -c "$c" -T search,basket -s bm25 -s "bundle:$b" -s "bundle:$b,blend=1e6" --tune --json \
    -r "$work/t"
same "$(json tasks.0.systems.2.tuned) $(json tasks.1.systems.2.tuned)" "true false"
same "$(json tasks.0.tuned_on_rows) $(json tasks.1.tuned_on_rows)" "1 0"
same "$(json tasks.1.systems.2.blend)" 0.0
same "$(json tasks.0.systems.3.blend)" 1000000.0
first_of()
{
    awk '$4 == 1 { print $1, $3 }' "$work/t/search.$1.run"
}
same "$(first_of bundle-bundle-+-1e+06-bm25)" "$(first_of bm25)" "the prior decides"
[ "$(first_of bundle-bundle)" != "$(first_of bm25)" ] || fail "nothing to tell apart"
fails evaluate -c "$c" -T search -s "run:$work/t/%.bm25.run,blend=tune"
err_has "a run has no scores of split valid"

it "measures a run as the system that wrote it"
ok evaluate -c "$c" -T search,basket -s "bundle:$b" --against before --json \
    -s "run:$work/b/%.bundle-bundle.run,name=before"
same "$(json tasks.0.systems.0.means)" "$(json tasks.0.systems.1.means)"
same "$(json tasks.0.systems.0.gains.ndcg_exp_cut_10.low)" 0.0

it "ranks texts with a bundle in text mode"
ok bundle from-reranker "$DATA/reranker" "$work/text"
ok evaluate -c "$c" -T search -s "bundle:$work/text" --json
json_valid
same "$(json tasks.0.systems.0.costs.unscored)" 0.0
compare "$(json tasks.0.systems.0.costs.bytes_per_item)" ">" 20

it "writes a page that names no folder of this machine"
ok evaluate -c "$c" -T search,basket,known -s bm25 -s "bundle:$b,store=$work/store" \
    -s "bundle:$b/,name=a|b" --against bm25 --no-family --tune -m "$work/page.md"
! grep -q "$work" "$work/page.md" || fail "a path stands in the page"
grep -q "^    mixrank evaluate --catalogue CATALOGUE --task search,basket,known" "$work/page.md" ||
    fail "the page does not say how it was made"
grep -qF "'bundle:bundle,store=URL'" "$work/page.md" || fail "the page lacks a system"
grep -qF '| a\|b' "$work/page.md" || fail "a bar in a name breaks the table"
grep -q "Without the rows whose answer" "$work/page.md" || fail "no rows without families"
same "$(grep -c '^## ' "$work/page.md")" 5

it "warns when the texts give the answers away"
printf '%s\n' '{"id":"g1","task":"gift","split":"test","query":"Quiet keyboard for shared rooms"}' \
    >>"$c/queries.jsonl"
echo "g1 0 lamp-desk 1" >"$c/qrels/gift.txt"
ok evaluate -c "$c" -T gift -s bm25
err_empty
ok evaluate -c "$c" -T gift@other.jsonl -s bm25
err_has "100 % of the rows of task gift"

it "gives the same figures again"
ok evaluate -c "$c" -T search,basket -s random -s linear -s "bundle:$b"  -s "dot:$b" --json
sed 's/"candidates_per_s":[^,]*//g' "$out" >"$work/first"
ok evaluate -c "$c" -T search,basket -s random -s linear -s "bundle:$b"  -s "dot:$b" --json -t 1
same "$(sed 's/"candidates_per_s":[^,]*//g' "$out" | cksum)" "$(cksum <"$work/first")"

it "refuses what it cannot measure"
fails evaluate -c "$work/nowhere" -T search -s bm25
err_has "nowhere/items.jsonl"
fails evaluate -c "$c" -T serach -s bm25
err_has "has no task 'serach'; it has search, basket, known"
fails evaluate -c "$c" -T search,search -s bm25
err_has "task 'search' is asked for twice"
fails evaluate -c "$c" -T search -s bm26
err_has "did you mean 'bm25'?"
fails evaluate -c "$c" -T search -s bm25 -s bm25
err_has "two systems are called 'bm25'"
fails evaluate -c "$c" -T search -s bm25 --against linear
err_has "no system is called 'linear'; they are 'bm25'"
fails evaluate -c "$c" -T search -s "bundle:$work/nowhere"
err_has "system 'bundle:nowhere'"
fails evaluate -c "$c" -T search -s "run:$work/nowhere.run"
err_has "nowhere.run"
fails evaluate -c "$c" -T search@nothing.jsonl -s bm25
err_has "nothing.jsonl"
fails evaluate -c "$c" -T search -s "dot:$work/text"
err_has "ranks text: it has no text encoder to run"
fails evaluate -c "$c" -T ,, -s bm25
err_has "--task names no task"
printf '{"id":"ann","fold":"train","history":["ghost"]}\n' >"$c/users.jsonl"
fails evaluate -c "$c" -T search -s bm25
err_has "line 1 of $c/users.jsonl: 'history': the catalogue has no item 'ghost'"
rm "$c/users.jsonl"
misuse evaluate -T search -s bm25
err_has "--catalogue is missing"
misuse evaluate -c "$c" -s bm25
err_has "--task is missing"
misuse evaluate -c "$c" -T search
err_has "--system is missing"
misuse evaluate -c "$c" -T search -s bm25 --split dev
err_has "expected train, valid or test"
disk_full evaluate -c "$c" -T search -s bm25
