#!/bin/sh
# images.sh - pictures of items: encoded, refused, ranked, sent along.
# SPDX-License-Identifier: Apache-2.0
. "$(dirname "$0")/lib.sh"

cat >"$work/spec.json" <<'END'
{"format": 1, "name": "pictures", "version": "1", "mode": "mixed", "max_length": 256,
 "prefix": ["Query: ", {"field": "query", "truncate": true}],
 "suffix": [{"slot": "item", "when": "item"}, {"slot": "image", "when": "image"},
            {"token": "<|endoftext|>"}],
 "score": {"yes": "yes", "no": "no"},
 "encoders": {"item": {"kind": "causal_last_n", "tokens": 1, "text": [{"field": "text"}]},
              "image": {"kind": "clip", "tokens": 4}}}
END
b=$work/b
s=$work/s
parts="--llm $DATA/mixed/llm --item-encoder $DATA/mixed/encoder"
tower=$DATA/clip/quick-gelu-patch14

it "makes a bundle with an image encoder, and refuses halves of one"
# shellcheck disable=SC2086  # several words
fails bundle create --spec "$work/spec.json" $parts "$b"
err_has "'encoders.image' is a clip encoder, but no folder with its tower was given"
# shellcheck disable=SC2086
fails bundle create --spec "$work/spec.json" $parts --image-encoder "$DATA/mixed/llm" "$b"
err_has "config.json"
# shellcheck disable=SC2086
ok bundle create --spec "$work/spec.json" $parts --image-encoder "$tower" "$b"
ok bundle golden --make 2 "$b"
ok bundle verify "$b"
grep -q '"image": *\[' "$b/golden.json" || fail "no golden request has a picture"
[ -f "$b/vision/preprocessor_config.json" ] || fail "the preprocessing did not come along"

it "refuses a bundle whose preprocessing was changed: it would be another space"
cp -R "$b" "$work/changed"
sed 's/0\.48145466/0.5/' "$tower/preprocessor_config.json" >"$work/changed/vision/preprocessor_config.json"
fails bundle verify "$work/changed"
err_has "vision/preprocessor_config.json"

it "encodes texts and pictures of a catalogue"
catalogue=$DATA/fixture/items.jsonl
n_pictures=$(grep -c '"image":' "$catalogue")
ok encode -b "$b" -s "$s" -i "$catalogue" --exact --json
json_valid lines
same "$(json lines entity | sed -n 2p) $(json lines encoded | sed -n 2p)" "pictures $n_pictures"
ok encode -b "$b" -s "$s" -i "$catalogue" --exact --json
same "$(json lines skipped | sed -n 2p) $(json lines encoded | sed -n 2p)" "$n_pictures 0"

it "goes on past broken and hostile pictures, and names each at the end"
mkdir "$work/cat" "$work/cat/pics"
cp "$DATA/images/rgb-61x47.png" "$work/cat/pics/good.png"
cp "$DATA/images/jpeg-420.jpg" "$work/cat/pics/really-a-jpeg.png"
head -c 60 "$DATA/images/rgba.png" >"$work/cat/pics/cut.png"
printf 'GIF89a' >"$work/cat/pics/gif.png"
: >"$work/cat/pics/empty.png"
# A PNG header of 60,000 x 60,000 pixels, with its checksum.
printf '\211PNG\r\n\032\n\000\000\000\rIHDR\000\000\352\140\000\000\352\140\010\002\000\000\000\137\014\013\275' \
    >"$work/cat/pics/bomb.png"
mkfifo "$work/cat/pics/pipe.png"
cat >"$work/cat/items.jsonl" <<'END'
{"id":"good","text":"a good one","image":"pics/good.png"}
{"id":"jpeg","text":"a wrong extension is no harm","image":"pics/really-a-jpeg.png"}
{"id":"cut","text":"cut short","image":"pics/cut.png"}
{"id":"gif","text":"a format that is not read","image":"pics/gif.png"}
{"id":"empty","text":"nothing","image":"pics/empty.png"}
{"id":"bomb","text":"huge","image":"pics/bomb.png"}
{"id":"pipe","text":"never waited for","image":"pics/pipe.png"}
{"id":"away","text":"not there","image":"pics/away.png"}
{"id":"out","text":"out of the folder","image":"../spec.json"}
{"id":"none","text":"no picture at all"}
{"id":"number","text":"no path","image":5}
{"id":"last","text":"after all of them","image":"pics/good.png"}
END
ok encode -b "$b" -s "$work/s2" -i "$work/cat/items.jsonl" --exact --batch 3
for item in cut gif empty bomb; do
    err_has "refused: item '$item': picture 'pics/$item.png': "
done
err_has "item 'bomb': picture 'pics/bomb.png': 60000 x 60000 pixels"
for item in pipe away out; do
    err_has "refused: item '$item': "
done
out_has "12 read, 12 encoded"
out_has "pictures: 12 read, 3 encoded"
out_has "8 refused"
err_has "item 'number': 'image' is the number 5, expected the path of a picture"
ok encode -b "$b" -s "$work/s3" -i "$work/cat/items.jsonl" --exact --json
json_valid lines
json lines refused | grep -q "item 'bomb'" || fail "JSON does not name the refused"

it "ranks by text, by picture and by both"
ok rank -b "$b" -s "$work/s2" -q "red kettle" -k 0 --json
json_valid
same "$(json scored)" 12

it "takes an older picture away from an item that has none any more"
cat >"$work/cat/v1.jsonl" <<'END'
{"id":"kept","text":"one","image":"pics/good.png"}
{"id":"broken","text":"two","image":"pics/good.png"}
{"id":"dropped","text":"three","image":"pics/good.png"}
END
sed 's/two","image":"pics\/good/two","image":"pics\/cut/; s/three","image":.*/three"}/' "$work/cat/v1.jsonl" >"$work/cat/v2.jsonl"
ok encode -b "$b" -s "$work/s5" -i "$work/cat/v1.jsonl" --exact
out_has "pictures: 3 read, 3 encoded at version 1"
ok encode -b "$b" -s "$work/s5" -i "$work/cat/v2.jsonl" --exact
out_has "pictures: 3 read, 1 encoded at version 2"
out_has "1 refused; 2 removed"
ok rank -b "$b" -s "$work/s5" -q "red kettle" -k 0 --json
json items >"$work/after"
ok encode -b "$b" -s "$work/s6" -i "$work/cat/v2.jsonl" --exact
ok rank -b "$b" -s "$work/s6" -q "red kettle" -k 0 --json
same "$(json items)" "$(cat "$work/after")" "a store that never had the old pictures ranks so"
ok encode -b "$b" -s "$work/s5" -i "$work/cat/v1.jsonl" --exact
out_has "pictures: 3 read, 3 encoded at version 3"

it "refuses to read a catalogue with pictures from standard input, which it cannot read twice"
fails encode -b "$b" -s "$work/s4" -i - </dev/null
err_has "--items must be a file"

it "takes a picture along with a request, and keeps a broken one from costing the others"
png=$(base64 <"$work/cat/pics/good.png" | tr -d '\n')
cat >"$work/requests.jsonl" <<END
{"id":"r","query":"red kettle","candidates":[{"id":"none"},{"id":"none","image_base64":"$png"},{"id":"last"},{"image_base64":"R0lGODlh","id":"last"}]}
END
ok rank -b "$b" -s "$work/s2" --requests "$work/requests.jsonl" -k 0 --json
json_valid lines
same "$(json scored)" 3
grep -q '"source":"image"' "$out" || fail "no candidate was scored with its picture"
sed 's/R0lGODlh/R0lG?Dlh/' "$work/requests.jsonl" >"$work/wrong.jsonl"
fails rank -b "$b" -s "$work/s2" --requests "$work/wrong.jsonl" --json
err_has "'image_base64' of candidate 'last': character 4 is no base64"
