#!/bin/sh
# What a reviewer should not have to look for, as a test. Each finding is a line "file:line: what".
# Usage: hygiene.sh ROOT
#
#   SPDX line              in every .c, .h, .inc and .sh file and every shell script
#   tabs, trailing blanks  not in C
#   100 columns            in C; characters count, not bytes, and a file may hold 1,000 lines
#   links                  of README, CONTRIBUTING, CHANGELOG and docs lead to files
#   paths of one machine   nowhere: home folders and the like
# SPDX-License-Identifier: Apache-2.0
set -eu
cd "$1"
LC_ALL=C
export LC_ALL

folders=
for folder in .ci benchmarks cmake core deploy docs encoders engine featurestore proto ranker tests; do
    [ ! -d "$folder" ] || folders="$folders $folder"
done
[ -n "$folders" ] || {
    echo "hygiene.sh: no folders of the project in $1"
    exit 1
}
found=$(mktemp)
list=$(mktemp)
trap 'rm -f "$found" "$list"' EXIT

# Names of ours have no blanks: what follows may split lists of them.
# shellcheck disable=SC2086
find $folders -type d -name __pycache__ -prune -o -type f ! -name '*.pyc' -print >"$list"
find . -maxdepth 1 -type f | sed 's|^\./||' >>"$list"
if grep '[[:space:]]' "$list" >>"$found"; then
    echo "the file names above have blanks in them" >>"$found"
fi
sort -o "$list" "$list"

c_files=$(grep -E '\.(c|h|inc)$' "$list" || true)
for file in $c_files; do
    awk -v file="$file" '
    function complain(what) { print file ":" FNR ": " what }
    /\t/ { complain("a tab") }
    /[ \t\r]$/ { complain("blanks at the end of the line") }
    {
        text = $0
        gsub(/[\200-\277]/, "", text) # the bytes of a character after its first
        if (length(text) > 100)
            complain(length(text) " columns, at most 100")
    }
    END {
        if (FNR > 1000)
            complain(FNR " lines, at most 1000: split it by subject")
    }' "$file" >>"$found"
done

while read -r file; do
    case $file in
    *.c | *.h | *.inc | *.sh) ;;
    *) head -n 1 "$file" | grep -aq '^#!.*sh' || continue ;;
    esac
    head -n 60 "$file" | grep -aq 'SPDX-License-Identifier: Apache-2\.0' ||
        echo "$file:1: no SPDX-License-Identifier in the first 60 lines" >>"$found"
done <"$list"

# Links: [text](path) and [text](path#part); not to other hosts, not inside code.
links_of() {
    awk '
    /^    |^\t/ { next }
    {
        text = $0
        gsub(/`[^`]*`/, "", text)
        while (match(text, /\]\([^)]*\)/)) {
            print FNR, substr(text, RSTART + 2, RLENGTH - 3)
            text = substr(text, RSTART + RLENGTH)
        }
    }' "$1"
}
grep -E '^(README|CONTRIBUTING|CHANGELOG)\.md$|^docs/.*\.md$|/README\.md$' "$list" |
    while read -r file; do
        links_of "$file" | while read -r line link rest; do
            case $link in
            http://* | https://* | mailto:* | '#'*) continue ;;
            esac
            [ -z "$rest" ] && [ -e "$(dirname "$file")/${link%%#*}" ] ||
                echo "$file:$line: the link to '$link${rest:+ $rest}' leads nowhere"
        done
    done >>"$found"

# Not in binary files; -I of GNU grep.
while read -r file; do
    grep -InE '(^|[^A-Za-z0-9._/-])/(home|root|work|Users)/' "$file" /dev/null || true
done <"$list" | sed 's/^\([^:]*:[0-9]*\):.*/\1: a path of one machine/' >>"$found"

if [ -s "$found" ]; then
    cat "$found"
    echo "$(wc -l <"$found") finding(s) in $(wc -l <"$list") files"
    exit 1
fi
echo "nothing found in $(wc -l <"$list") files"
