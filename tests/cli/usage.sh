#!/bin/sh
# usage.sh - help of every command, and mistakes in a call: exit 2 with the nearest name.
# SPDX-License-Identifier: Apache-2.0
. "$(dirname "$0")/lib.sh"

it "has a help for every command that names its options and shows examples"
help_names()
{
    command=$1
    shift
    # shellcheck disable=SC2086  # "bundle create" is two words
    ok $command --help
    err_empty
    out_has "Usage: mixrank $command"
    out_has "Examples:"
    for option in "$@"; do
        out_has "--$option"
    done
}

help_names encode bundle store items users dtype batch map-gb exact json quiet threads version
help_names rank bundle store query user candidates items field requests limit top blend timeout-ms \
    max-candidates threads explain json trec quiet
help_names evaluate catalogue task system against split tune no-family titles limit resamples seed \
    threads runs markdown json quiet
help_names "bundle create" spec llm item-encoder item-projector user-encoder user-projector dtype link force json
help_names "bundle golden" requests make seed json
help_names "bundle verify" json
help_names "bundle show" json
help_names "bundle from-reranker" instruction max-length link force json
help_names "bundle untrained" shape seed item-tokens user-tokens force json
help_names caption model image prompt raw-prompt max-tokens temperature top-p seed pad-square \
    context threads explain json
help_names tokenize model decode plain add-special skip-special json
help_names train out threads fresh stop-step check json quiet
help_names forward model text ids embeds out backend threads add-special json
help_names check bundle store json
help_names version json

it "lists the commands"
ok --help
for command in encode rank evaluate train bundle caption tokenize forward check version; do
    out_has "  $command"
done
ok help
ok -h
ok bundle --help
for command in create golden verify show from-reranker untrained; do
    out_has "  $command"
done

it "refuses an unknown command or option with the nearest name"
misuse
err_has "usage: mixrank COMMAND"
misuse bundle
err_has "usage: mixrank bundle COMMAND"
misuse rnak
err_has "unknown command 'rnak', did you mean 'rank'?"
misuse zzzzzz
err_has "unknown command 'zzzzzz'; 'mixrank --help' lists them"
misuse bundle shwo
err_has "unknown command 'shwo', did you mean 'show'?"
misuse rank --qurey x
err_has "did you mean '--query'?"
err_has "'mixrank rank --help' shows how it is used"
misuse encode -z
err_has "unknown option '-z'"
misuse encode --max-gb 1
err_has "did you mean '--map-gb'?"
misuse bundle verify --jsn x
err_has "did you mean '--json'?"
misuse check --json=yes
err_has "'--json' takes no value"

it "refuses a value out of its range with the range"
misuse rank --top many
err_has "--top is 'many', expected an integer from 0 to 1000000"
misuse rank --top -1
misuse rank --blend nan
misuse encode --dtype f8
err_has "--dtype is 'f8', expected f32, f16, bf16 or int8"
misuse forward --backend gpu
err_has "expected scoring, blas or oracle"
misuse encode --map-gb 0
err_has "--map-gb is '0', expected a number from 0.001"

it "refuses what is left over or left out"
misuse rank --query
err_has "'--query' needs a value"
misuse version now
err_has "unexpected argument 'now'"
misuse tokenize --model x text
err_has "text comes on standard input"

misuse rank -q x
err_has "--bundle is missing"
misuse rank -b x
err_has "--query, --user or --requests is missing"
misuse rank -b x -q x
err_has "--store or --items is missing"
misuse rank -b x -r y -q z
err_has "--requests brings its own queries and users"
misuse rank -b x -q z -i - -c -
err_has "standard input is one file: --items, --requests or --candidates"
misuse encode -b x -s y -i - -u -
err_has "standard input is one file: --items or --users"
misuse rank -b x -s y -q z --json --trec
err_has "give either --json or --trec"
misuse encode -b x -s y
err_has "--items or --users is missing"
misuse encode -b x -i y
err_has "--store is missing"
misuse encode -s x -i y
err_has "--bundle is missing"
misuse tokenize
err_has "--model is missing"
misuse forward -m x -t y
err_has "--out is missing"
misuse forward -m x -o y
err_has "give either --text or --ids"
misuse forward -m x -o y -t a -i 1
err_has "give either --text or --ids"
misuse bundle create --llm x out
err_has "--spec is missing"
misuse bundle create --spec x out
err_has "--llm is missing"
misuse bundle verify
err_has "give one bundle"
misuse bundle show a b
err_has "give one bundle"
misuse bundle from-reranker x
err_has "give the reranker's folder and the folder to create"
misuse bundle untrained --shape huge out
err_has "--shape 'huge' is not known; known are tiny,"

it "says what it is"
ok version
out_has "mixrank "
ok version --json
json_valid
[ -n "$(json version)" ] || fail "no version"
err_empty
ok check --json
json_valid
same "$(json kernels.0)" generic

it "does not take a full disk for success"
disk_full --help
disk_full rank --help
disk_full version --json
disk_full check
