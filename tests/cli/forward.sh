#!/bin/sh
# forward.sh - hidden states and logits of a checkpoint, against transformers' and between back ends.
# SPDX-License-Identifier: Apache-2.0
. "$(dirname "$0")/lib.sh"

it "gives the hidden states and logits of transformers, with every back end"
# The reference (tests/data/README.md, "models/") counts hidden states as this does.
n=0
for folder in "$DATA"/models/*/; do
    case=$(basename "$folder")
    model=$DATA/models/$case
    ids=$("$TENSORS" ids "$model/reference.safetensors" input_ids)
    for backend in scoring blas oracle; do
        ok forward --model "$model" --ids "$ids" --backend "$backend" --out "$work/$backend.safetensors"
        out_has "hidden_states.0 .. "
        "$TENSORS" compare "$work/$backend.safetensors" "$model/reference.safetensors" 1e-5 ||
            fail "$case: $backend is not what transformers gives"
    done
    "$TENSORS" compare "$work/scoring.safetensors" "$work/oracle.safetensors" 1e-5 ||
        fail "$case: scoring against the oracle"
    "$TENSORS" compare "$work/blas.safetensors" "$work/oracle.safetensors" 1e-5 ||
        fail "$case: blas against the oracle"
    n=$((n + 1))
done
[ "$n" -ge 10 ] || fail "only $n models found"

it "puts vectors in the place of ids, bit for bit as masked_scatter does"
model=$DATA/models/qwen3
ids=$("$TENSORS" ids "$model/reference.safetensors" input_ids embeds_mask)
case $ids in
*-1*) ;;
*) fail "the reference has no vectors" ;;
esac
"$TENSORS" copy "$model/reference.safetensors" embeds_vectors "$work/embeds.safetensors" embeds
ok forward --model "$model" --ids "$ids" --embeds "$work/embeds.safetensors" --out "$work/o.safetensors"
"$TENSORS" compare "$work/o.safetensors:logits" "$model/reference.safetensors:embeds_logits" 1e-5 ||
    fail "logits after the scatter"
"$TENSORS" compare "$work/o.safetensors:hidden_states.0" "$model/reference.safetensors:inputs_embeds" 0 ||
    fail "the scatter is not bit for bit masked_scatter's"
fails forward --model "$model" --ids "$ids" --out "$work/none.safetensors"
err_has "embedding slots, but 0 embedding vectors"
fails forward --model "$model" --ids 1,2 --embeds "$work/embeds.safetensors" --out "$work/none.safetensors"
err_has "0 embedding slots"

it "gives the same bits with one and two threads"
ok forward --model "$model" --ids 1,2,3,4,5,6,7 --threads 1 --out "$work/one.safetensors"
ok forward --model "$model" --ids 1,2,3,4,5,6,7 --threads 2 --out "$work/two.safetensors"
cmp -s "$work/one.safetensors" "$work/two.safetensors" || fail "other bits with two threads"

it "tokenises text with the tokenizer of the model"
ok forward --model "$DATA/mixed/llm" --text 'red kettle' --out "$work/text.safetensors" --json
json_valid
same "$(json tokens)" 3
same "$("$TENSORS" ids "$work/text.safetensors" input_ids)" "468,67,579"

it "says what is wrong with the input, and leaves no file"
fails forward --model "$model" --ids 1,two --out "$work/none.safetensors"
err_has "--ids: 'two' is not a token id or -1"
fails forward --model "$model" --ids 1,999999 --out "$work/none.safetensors"
err_has "outside the vocabulary"
fails forward --model "$model" --ids , --out "$work/none.safetensors"
err_has "the input has no tokens"
fails forward --model "$model" --text x --out "$work/none.safetensors"
err_has "tokenizer.json"
fails forward --model "$work/nowhere" --ids 1 --out "$work/none.safetensors"
err_has "nowhere"
fails forward --model "$model" --ids 1 --out "$work/no/such/folder/x.safetensors"
err_has "no/such/folder"
[ ! -e "$work/none.safetensors" ] || fail "a failed run left a file"

it "does not replace a pipe or a device by a file"
mkfifo "$work/pipe" # stands for /dev/null: a bug must not cost the machine its device
fails forward --model "$model" --ids 1,2 --out "$work/pipe"
err_has "it is a pipe, expected a regular file or a new name"
[ -p "$work/pipe" ] || fail "the pipe is gone"

it "fails when the summary cannot be written"
disk_full forward --model "$model" --ids 1,2 --out "$work/o.safetensors" --json

it "says that weights are untrained, in the summary and in the file"
ok bundle untrained "$work/b"
ok forward --model "$work/b/llm" --text x --out "$work/u.safetensors"
out_has "$notice"
ok forward --model "$work/b/llm" --text x --out "$work/u.safetensors" --json
same "$(json notice)" "$notice"
err_has "$notice"
grep -qF "$notice" "$work/u.safetensors" || fail "the file does not say that it is untrained"

it "gives LLaVA's hidden states and logits of a picture, with both back ends"
n=0
for folder in "$DATA"/llava/*/; do
    for backend in scoring oracle; do
        ok forward --model "$folder" --backend $backend --image "$DATA/images/rgb-61x47.png" \
            --text "USER: <image>
What is the color? ASSISTANT:" --out "$work/picture.safetensors"
        for layer in 0 1 2; do
            "$TENSORS" compare "$work/picture.safetensors:hidden_states.$layer" \
                "$folder/reference.safetensors:0.hidden_states.$layer" 1e-5 ||
                fail "$folder: $backend: hidden state $layer is not what transformers gives"
        done
        n=$((n + 1))
    done
done
[ "$n" -ge 6 ] || fail "only $n runs"
ok forward --model "$DATA/llava/published" --image "$DATA/images/grey.png" --out "$work/template.safetensors" --json
json_valid

it "refuses a picture that does not fit the rest"
misuse forward --model "$DATA/llava/published" --image x.png --ids 1,2 --out "$work/none.safetensors"
err_has "--image goes with --text alone"
misuse forward --model "$DATA/llava/published" --image x.png --backend blas --out "$work/none.safetensors"
err_has "scoring or oracle"
fails forward --model "$DATA/llava/published" --image "$work/away.png" --out "$work/none.safetensors"
err_has "away.png"
fails forward --model "$DATA/llava/published" --image "$DATA/images/grey.png" --text "no marker" --out "$work/none.safetensors"
err_has "0 '<image>' markers and there is 1 picture"
fails forward --model "$DATA/llava/published" --image "$DATA/llava/published/config.json" --out "$work/none.safetensors"
err_has "config.json"
[ ! -e "$work/none.safetensors" ] || fail "a file was left"
