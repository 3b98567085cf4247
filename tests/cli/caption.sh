#!/bin/sh
# caption.sh - answers about pictures, against transformers' (tests/data/README.md, "llava/").
# SPDX-License-Identifier: Apache-2.0
. "$(dirname "$0")/lib.sh"

pictures=$DATA/images
caption_notice="untrained weights: what it says means nothing"

# ---- the answers of the reference, as text and as JSON ----

for case in published sharded-f16 module-names-f16; do
    model=$DATA/llava/$case
    want=$("$JSONCHECK" 0.answer <"$model/reference.json")
    ok caption --model "$model" --image "$pictures/rgb-61x47.png" --prompt "What is the color?" \
        --max-tokens 64 --json
    json_valid
    same "$(json answer)" "$want" "$case"
    same "$(json answer_tokens) $(json ended) $(json untrained)" "64 false false"
    ok caption -m "$model" -i "$pictures/rgb-61x47.png" -p "What is the color?" --max-tokens 64
    same "$(cat "$out")" "$want" "$case, streamed"
    [ ! -s "$err" ] || fail "talk without --explain"
    ok caption -m "$model" -i "$pictures/rgb-61x47.png" --raw-prompt \
        -p "USER: <image>
What is the color? ASSISTANT:" --max-tokens 64
    same "$(cat "$out")" "$want" "$case, raw prompt"
done

model=$DATA/llava/published
ok caption -m "$model" -i "$pictures/rgba.png" -i "$pictures/rgb-portrait-37x90.png" \
    -p "table or chair?" --max-tokens 64
same "$(cat "$out")" "$("$JSONCHECK" 1.answer <"$model/reference.json")" "two pictures"

# ---- shapes ----

ok caption -m "$model" -i "$pictures/rgb-61x47.png" -p "What is the color?" --max-tokens 3 --explain
err_has "input_ids       [1, 33]   29 of text, 4 of pictures"
err_has "pixel_values    [1, 3, 28, 28]"
err_has "image_features  [1, 4, 24]"
err_has "projected       [1, 4, 32]"
err_has "inputs_embeds   [1, 33, 32]"
err_has "logits          [1, 768]"
err_has "first token after"
err_has "3 tokens, cut at --max-tokens"
ok caption -m "$model" -i "$pictures/rgba.png" -i "$pictures/bmp24-47x35.bmp" -p x --max-tokens 1 --json
json_valid
same "$(json shapes.image_features.0) $(json shapes.pixel_values.1) $(json shapes.logits.1)" "2 3 768"
ok caption -m "$model" -p "No picture at all" --max-tokens 2

# ---- sampling ----

for seed in 1 1 2; do
    ok caption -m "$model" -i "$pictures/grey.png" -p "Well?" --max-tokens 24 --temperature 1 \
        --top-p 0.9 --seed "$seed"
    cat "$out" >>"$work/sampled-$seed"
done
same "$(sort "$work/sampled-1" | uniq | wc -l)" "$(sort "$work/sampled-2" | uniq | wc -l)" "one answer a seed"
[ "$(head -c 60 "$work/sampled-1")" != "$(head -c 60 "$work/sampled-2")" ] || fail "seeds 1 and 2 say the same"

# ---- an untrained model says that it is one ----

ok bundle untrained --shape llava-tiny --seed 3 "$work/tiny"
out_has "created $work/tiny"
fails bundle untrained --shape llava-tiny "$work/tiny"
err_has "is already there; --force"
ok bundle untrained --shape llava-tiny --seed 3 --force "$work/tiny" --json
json_valid
same "$(json shape) $(json untrained)" "llava-tiny true"
ok caption -m "$work/tiny" -i "$pictures/jpeg-420.jpg" -p "Describe it." --max-tokens 5 --json
json_valid
same "$(json notice)" "$caption_notice"
err_has "$caption_notice"
ok caption -m "$work/tiny" -i "$pictures/jpeg-420.jpg" -p "Describe it." --max-tokens 5 --pad-square
err_has "$caption_notice"

# ---- what does not work ----

misuse caption
err_has "--model is missing"
misuse caption -m "$model"
err_has "--prompt is missing"
misuse caption -m "$model" -p x "$pictures/grey.png"
err_has "pictures are given with --image"
misuse caption -m "$model" -p x --temperature -1
err_has "temperature"
misuse caption -m "$model" -p x --top-p 0
err_has "top-p"
fails caption -m "$model" -p x -i "$work/nothing.png"
err_has "$work/nothing.png"
fails caption -m "$work/nothing" -p x
err_has "$work/nothing/config.json"
head -c 300 "$pictures/rgb-61x47.png" >"$work/cut.png"
fails caption -m "$model" -p x -i "$work/cut.png"
err_has "$work/cut.png"
fails caption -m "$model" -p "<image> or <image>?" --raw-prompt -i "$pictures/grey.png"
err_has "the prompt has 2 '<image>' markers and there is 1 picture"
fails caption -m "$model" -p x -i "$pictures/grey.png" --max-tokens 600
err_has "an answer of 600 tokens do not fit the 512 positions"
fails caption -m "$model" -p x --context 513
err_has "max_position_embeddings 512"
fails caption -m "$DATA/models/qwen3" -p x
err_has "model_type 'qwen3' is not LLaVA"
