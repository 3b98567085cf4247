#!/bin/sh
# Include direction, as a test: an arrow that runs back fails with the file and the line.
# Usage: layers.sh ROOT
# The table is the one of docs/architecture.md: a layer, then the folders that it may include, on one
# line or more. A layer may always include itself and the generated version header. '*' is everything.
# SPDX-License-Identifier: Apache-2.0
set -eu
cd "$1"

table='
core
proto
engine              core
encoders            core engine
featurestore        core proto
ranker/model        core engine encoders
ranker/experiments  core
ranker/pipeline     core engine encoders ranker/model featurestore ranker/experiments
ranker/training     core engine encoders ranker/model
ranker/evaluation   core engine encoders ranker/model featurestore
ranker/evaluation   ranker/experiments ranker/pipeline
ranker/service      core engine encoders ranker/model featurestore
ranker/service      ranker/experiments ranker/pipeline proto
ranker/cli          *
'

folders=
for folder in core engine encoders featurestore ranker; do
    [ -d "$folder" ] && folders="$folders $folder"
done
# shellcheck disable=SC2086
find $folders -type f \( -name '*.[ch]' -o -name '*.inc' \) | sort | awk -v table="$table" '
BEGIN {
    n = split(table, rows, "\n")
    for (i = 1; i <= n; i++) {
        m = split(rows[i], words, " ")
        if (m == 0)
            continue
        known[words[1]] = 1
        for (j = 1; j <= m; j++)
            may[words[1], words[j]] = 1
    }
}

function folder_of(path) {
    return path ~ /\// ? substr(path, 1, match(path, /\/[^\/]*$/) - 1) : ""
}

# The layer of a file: its folder, or the nearest folder above that is a layer.
function layer_of(path) {
    for (path = folder_of(path); path != "" && !(path in known); path = folder_of(path))
        ;
    return path
}

function complain(place, what) {
    print place ": " what
    broken++
}

{
    file = $0
    files++
    layer = layer_of(file)
    if (layer == "") {
        complain(file, "belongs to no layer; add its folder to tests/layers.sh")
        next
    }
    line = 0
    while ((getline text < file) > 0) {
        line++
        if (text !~ /^[ \t]*#[ \t]*include[ \t]*["<]/)
            continue
        split(text, parts, /["<>]/)
        target = parts[2]
        quoted = text ~ /include[ \t]*"/
        aim = layer_of(target)
        # <...> is for the system, unless it names one of our folders.
        if (!quoted && aim == "" && target !~ /^proto\//)
            continue
        if (target == "mixrank_version.h" || (layer, "*") in may)
            continue
        if (aim == "")
            aim = folder_of(target)
        if (target ~ /(^|\/)\.\.?\// || !((layer, aim) in may))
            complain(file ":" line, layer " may not include \"" target "\"")
    }
    close(file)
}

END {
    if (files == 0)
        complain("layers.sh", "no source files found")
    if (broken) {
        print "include direction broken in " broken " place(s)"
        exit 1
    }
    print "include direction holds in " files " files"
}'
