#!/bin/sh
# train.sh - a vocabulary and a tiny language model: checked, trained, stopped, killed, resumed,
# refused, on a disk that is full.
# SPDX-License-Identifier: Apache-2.0
. "$(dirname "$0")/lib.sh"

cd "$work" || exit
awk 'BEGIN {
    n = split("red blue big small fast slow text image editor player game tool server font", w, " ")
    for (i = 0; i < 500; i++) {
        line = ""
        for (k = 0; k < 10; k++)
            line = line w[1 + (i * (k + 3) + k * k) % n] " "
        printf "{\"text\":\"%s\"}\n", line
    }
}' >texts.jsonl

cat >bpe.yaml <<'END'
stage: bpe
data: {texts: [texts.jsonl]}
vocabulary: 300
END

cat >lm.yaml <<'END'
stage: next_token
seed: 3
tokenizer: tok
parts:
  - {name: llm, new: decoder, layers: 1, width: 16, heads: 2, kv_heads: 1, ffn: 24}
data: {texts: [texts.jsonl]}
steps: 60
batch: 4
max_tokens: 16
valid_every: 20
optimizer: {rate: 5e-3, warm_up: 5}
checkpoint: {steps: 15, keep: 1}
END

# lm.yaml with one line changed: vary NAME SED.
vary()
{
    sed "$2" lm.yaml >"$1.yaml"
}

# The log without what depends on the clock.
steps_of()
{
    sed 's/"tokens_per_s":.*//' "$1/log.jsonl"
}

same_model()
{
    cmp -s "lm/llm/model.safetensors" "$1/llm/model.safetensors" || fail "$1: other weights"
    [ "$(steps_of lm)" = "$(steps_of "$1")" ] || fail "$1: another log"
}

it "learns a vocabulary"
ok train bpe.yaml --out tok --json
json_valid
same "$(json stage) $(json finished) $(json tokens)" "bpe true 300"
err_empty
ok train bpe.yaml --out tok
out_has "bpe: a vocabulary of 300"
ok tokenize -m tok </dev/null

it "checks a recipe and its files without training"
ok train lm.yaml --check
out_has "found    tokenizer        tok"
out_has "stage next_token, 60 steps of 4, recipe "
err_empty
ok train lm.yaml --check --json
json_valid
same "$(json files.1.role) $(json files.1.found)" "data.texts true"
vary missing 's/texts.jsonl/none.jsonl/'
fails train missing.yaml --check
out_has "MISSING  data.texts       none.jsonl"
err_has "1 of its files is not there, the first is 'none.jsonl'"
[ ! -e none ] && [ ! -e lm ] || fail "a check made a folder"

it "trains, and leaves a model, a log and a picture"
ok train lm.yaml --out lm --threads 1 --json
json_valid
err_empty
same "$(json stage) $(json first_step) $(json last_step) $(json finished)" "next_token 1 60 true"
compare "$(json valid_loss)" '<' 5
compare "$(json tokens)" '==' 3840
same "$(wc -l <lm/log.jsonl | tr -d ' ')" 60
same "$(grep -c valid lm/log.jsonl)" 3
grep -q '</svg>' lm/loss.svg || fail "no picture"
ok forward -m lm/llm -t "red text editor" -o states.safetensors
ok train lm.yaml --out lm
out_has "next_token: was finished at step 60"

it "gives the same bits with more threads"
ok train lm.yaml --out threads --threads 4 --quiet
same_model threads

it "goes on from a checkpoint to the same bits"
ok train lm.yaml --out stopped --stop-step 22
err_has "stopped after step 22; to go on: mixrank train lm.yaml --out stopped"
out_has "steps 1 to 22 of 60"
[ ! -e stopped/llm ] || fail "a run that is not finished left a model"
ok train lm.yaml --out stopped --json
same "$(json first_step) $(json last_step) $(json finished)" "23 60 true"
same_model stopped

it "may be killed at any time"
vary long 's/steps: 60/steps: 1000000/; s/steps: 15/steps: 2/'
"$MIXRANK" train long.yaml --out killed >"$out" 2>"$err" &
child=$!
children="$children $child"
tries=0
while ! ls killed/checkpoint-*/trainer.json >/dev/null 2>&1 && [ "$tries" -lt 300 ]; do
    sleep 0.1
    tries=$((tries + 1))
done
kill -9 "$child"
wait "$child" 2>/dev/null || true
found=$(ls -d killed/checkpoint-0* | tail -n 1 | sed 's/.*-0*//')
ok train long.yaml --out killed --stop-step $((found + 3)) --json
same "$(json first_step)" "$((found + 1))"
same "$(tail -n 1 killed/log.jsonl | grep -c '"step":')" 1

it "stops on a signal with a checkpoint and says how to go on"
for signal in INT TERM; do
    # What runs behind a script starts with SIGINT ignored; the program listens nevertheless.
    "$MIXRANK" train long.yaml --out "on-$signal" >"$out" 2>"$err" &
    child=$!
    children="$children $child"
    tries=0
    while [ ! -s "on-$signal/log.jsonl" ] && [ "$tries" -lt 300 ]; do
        sleep 0.1
        tries=$((tries + 1))
    done
    kill -"$signal" "$child"
    status=0
    wait "$child" || status=$?
    last="train long.yaml --out on-$signal, and SIG$signal"
    same "$status" 1 "exit status"
    err_has "stopping after this step"
    err_has "to go on: mixrank train long.yaml --out on-$signal"
    ls "on-$signal"/checkpoint-*/trainer.json >/dev/null || fail "no checkpoint"
done

it "begins anew when asked, and forgets what was there"
ok train lm.yaml --out stopped --fresh --stop-step 17
ls -d stopped/checkpoint-* >"$out"
same "$(cat "$out")" stopped/checkpoint-00000017
ok train lm.yaml --out stopped
out_has "steps 18 to 60"
same_model stopped

it "refuses to go on under another recipe"
vary other 's/seed: 3/seed: 4/'
fails train other.yaml --out lm
err_has "is of another recipe"
err_has "--fresh"
vary cosmetic 's/keep: 1/keep: 3/; s/valid_every: 20/valid_every: 30/'
ok train cosmetic.yaml --out lm
out_has "was finished at step 60"

it "keeps its checkpoint when the disk is full"
ok train lm.yaml --out full --stop-step 20
last="train lm.yaml --out full, with files of at most 8 kB"
status=0
(ulimit -f 16 && exec "$MIXRANK" train lm.yaml --out full) >"$out" 2>"$err" || status=$?
same "$status" 1 "exit status"
err_has "full/checkpoint.partial"
[ -e full/checkpoint-00000020/trainer.json ] || fail "the checkpoint is gone"
ok train lm.yaml --out full
out_has "steps 21 to 60"
same_model full

it "says what is wrong with a recipe or its data"
vary wrong 's/batch:/bacth:/'
fails train wrong.yaml --out wrong
err_has "wrong.yaml:8: unknown key 'bacth'; did you mean 'batch'?"
vary wrong 's/rate: 5e-3/rate: -1/'
fails train wrong.yaml --out wrong
err_has "wrong.yaml:11: optimizer.rate is '-1', expected a number from 0 to 1"
fails train none.yaml --out wrong
err_has "none.yaml"
[ ! -e wrong ] || fail "a wrong recipe made a folder"
: >empty.jsonl
vary empty 's/texts.jsonl/empty.jsonl/'
fails train empty.yaml --out empty
err_has "data.texts gives 0 tokens"
printf '{"text":"a"}\n{"txet":"b"}\n' >broken.jsonl
vary broken 's/texts.jsonl/broken.jsonl/'
fails train broken.yaml --out broken
err_has "broken.jsonl, line 2"
err_has "'text' is missing"
fails train missing.yaml --out missing
err_has "none.jsonl"
vary frozen 's/^steps:/freeze: ["llm.*"]\nsteps:/'
fails train frozen.yaml --out frozen
err_has "everything is frozen"

misuse train --out x
err_has "give one recipe"
misuse train lm.yaml
err_has "--out is missing"
