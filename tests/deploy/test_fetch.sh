#!/bin/sh
# test_fetch.sh - deploy/demo/fetch against a small archive in a folder, then demo-catalogue on what
# it brought. No network.
#
#     test_fetch.sh ROOT DEMO_CATALOGUE
#
# The archive is served by apt's file method; what stands in for the system's sources is named
# through APT_CONFIG, which fetch reads as it would read the system's own.
# SPDX-License-Identifier: Apache-2.0
set -eu
root=$1
program=$2
for tool in apt-get apt-config dpkg-deb gzip tar sha256sum; do
    command -v "$tool" >/dev/null || {
        echo "skipped: no '$tool' on this machine"
        exit 77
    }
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fixture=$root/tests/data/debian-fixture
n=0

wrong() {
    echo "not ok: $*"
    [ ! -f "$work/log" ] || sed 's/^/    /' "$work/log"
    exit 1
}

# runs EXPECTED_STATUS TEXT COMMAND...: the talk on standard error must hold the text.
runs() {
    status=0
    want=$1 text=$2
    shift 2
    "$@" >"$work/out" 2>"$work/log" || status=$?
    [ "$status" = "$want" ] || wrong "'$*' ended with $status, expected $want"
    [ -z "$text" ] || grep -qF -- "$text" "$work/log" || wrong "'$*' did not say: $text"
    n=$((n + 1))
}

# --- an archive --------------------------------------------------------------------------------

# Fills $archive/dists/demo from the fixture, with a package debtags that holds the vocabulary.
make_archive() {
    archive=$1
    dist=$archive/dists/demo
    mkdir -p "$dist/main/binary-amd64" "$dist/main/i18n" "$dist/main/source" "$dist/main/dep11" \
        "$archive/pool" "$work/deb/DEBIAN" "$work/deb/usr/share/debtags" "$work/icons"
    cp "$fixture/vocabulary" "$work/deb/usr/share/debtags/"
    cat >"$work/deb/DEBIAN/control" <<'CONTROL'
Package: debtags
Version: 1.0
Architecture: all
Maintainer: Nobody <nobody@example.org>
Description: an invented package
CONTROL
    dpkg-deb --root-owner-group -b "$work/deb" "$archive/pool/debtags_1.0_all.deb" >/dev/null
    # The index says more of a package than the fixture needs.
    sed 's/^Version: /Architecture: amd64\nFilename: pool\/none.deb\nSize: 1\nVersion: /' \
        "$fixture/Packages" >"$dist/main/binary-amd64/Packages"
    {
        echo
        cat "$work/deb/DEBIAN/control"
        printf 'Filename: pool/debtags_1.0_all.deb\nSize: %s\nSHA256: %s\n\n' \
            "$(wc -c <"$archive/pool/debtags_1.0_all.deb")" \
            "$(sha256sum <"$archive/pool/debtags_1.0_all.deb" | cut -d' ' -f1)"
    } >>"$dist/main/binary-amd64/Packages"
    cp "$fixture/Translation-en" "$dist/main/i18n/"
    cp "$fixture/Sources" "$dist/main/source/"
    gzip -c "$fixture/Components.yml" >"$dist/main/dep11/Components-amd64.yml.gz"
    printf '\211PNG\r\n\032\nan icon' >"$work/icons/acornpad_acornpad.png"
    mkdir -p "$work/icons/folder"
    printf '\211PNG\r\n\032\nanother' >"$work/icons/folder/hidden.png"
    (cd "$work/icons" && tar -cf - . | gzip >"$dist/main/dep11/icons-64x64.tar.gz")
    sign_archive
}

# A release file with the digests of all indexes; unsigned, so that its source must say Trusted.
sign_archive() {
    (
        cd "$dist"
        sed '/^Description/d' "$fixture/Release"
        echo 'SHA256:'
        find main -type f | while IFS= read -r file; do
            printf ' %s %s %s\n' "$(sha256sum <"$file" | cut -d' ' -f1)" "$(wc -c <"$file")" "$file"
        done
        # A compressed index is looked for under the name that it has when unpacked.
        for file in dep11/Components-amd64.yml dep11/icons-64x64.tar; do
            gzip -dc "main/$file.gz" >"$work/plain"
            printf ' %s %s main/%s\n' "$(sha256sum <"$work/plain" | cut -d' ' -f1)" \
                "$(wc -c <"$work/plain")" "$file"
        done
    ) >"$work/Release"
    mv "$work/Release" "$dist/Release"
}

# --- the sources of a system -------------------------------------------------------------------

mkdir -p "$work/system"
cat >"$work/apt.conf" <<CONF
Dir::Etc::sourcelist "$work/sources.list";
Dir::Etc::sourceparts "$work/system";
Acquire::http::Proxy "http://127.0.0.1:1";
CONF
export APT_CONFIG="$work/apt.conf" MIXRANK_DEMO_SUITE=demo
fetch=$root/deploy/demo/fetch
make_archive "$work/archive"

runs 1 "have no 'deb' entry with component main for suite 'demo'" "$fetch" "$work/got"

# One line, after entries that do not fit: no main, a pocket, commented out, source only.
cat >"$work/sources.list" <<LIST
deb [trusted=yes] file:$work/nowhere demo contrib
deb [trusted=yes] file:$work/nowhere demo-updates main
#deb [trusted=yes] file:$work/nowhere demo main
deb-src [trusted=yes] file:$work/nowhere demo main
deb [ arch=amd64 trusted=yes ] file:$work/archive demo contrib main # the one
deb [trusted=yes] file:$work/nowhere demo main
LIST
runs 0 "done: suite demo, Sat, 01 Jan 2022 00:00:00 UTC, 1 icons" "$fetch" "$work/got"
for file in Translation-en Sources Components.yml; do
    cmp "$fixture/$file" "$work/got/lists/$file" || wrong "$file differs from the archive's"
done
cmp "$fixture/vocabulary" "$work/got/debtags.vocabulary" || wrong "the vocabulary differs"
[ "$(ls "$work/got/icons")" = acornpad_acornpad.png ] || wrong "icons: $(ls "$work/got/icons")"

# A second run does nothing, even without a source; what was damaged is fetched again.
mv "$work/archive" "$work/away"
runs 0 "everything is there: suite demo" "$fetch" "$work/got"
echo damage >>"$work/got/lists/Sources"
runs 1 "failed for suite 'demo'; is the archive reachable" "$fetch" "$work/got"
mv "$work/away" "$work/archive"
runs 0 "done: suite demo" "$fetch" "$work/got"
cmp "$fixture/Sources" "$work/got/lists/Sources" || wrong "the damage is still there"
rm "$work/got/icons/acornpad_acornpad.png"
runs 0 "done: suite demo" "$fetch" "$work/got"

# Stanzas, with folded fields, a disabled one first. Without Trusted the unsigned archive is refused.
: >"$work/sources.list"
cat >"$work/system/one.sources" <<SOURCES
# a comment
Enabled: no
Types: deb
URIs: file:$work/nowhere
Suites: demo
Components: main

Types: deb deb-src
URIs:
 file:$work/archive
Suites: demo demo-updates
Components: contrib
 main
trusted: yes
SOURCES
runs 0 "done: suite demo" "$fetch" "$work/got2"
cmp "$work/got/stamp" "$work/got2/stamp" || wrong "the two forms of one source give different files"
sed '/^trusted/d' "$work/system/one.sources" >"$work/system/two.sources"
rm "$work/system/one.sources"
runs 1 "failed for suite 'demo'" "$fetch" "$work/got3"
grep -q 'not signed' "$work/log" || wrong "the reason, 'not signed', is not shown"
[ ! -e "$work/got3/stamp" ] || wrong "a failed run left a stamp"

# Another archive by name keeps the options of the system's entry, its trust among them.
sed "s|$work/archive|$work/nowhere|; \$a Trusted: yes" "$work/system/two.sources" \
    >"$work/system/three.sources"
rm "$work/system/two.sources"
runs 1 "failed for suite 'demo'" "$fetch" "$work/got3"
runs 0 "done: suite demo" env MIXRANK_DEMO_ARCHIVE="file:$work/archive" "$fetch" "$work/got3"

# An archive whose index was changed after it was released.
echo >>"$work/archive/dists/demo/main/source/Sources"
runs 1 "failed for suite 'demo'" env MIXRANK_DEMO_ARCHIVE="file:$work/archive" "$fetch" "$work/got4"
sign_archive

runs 1 "is not an option" "$fetch" --no-such-option
runs 1 "takes one folder, found 2" "$fetch" a b
runs 1 "has a blank" "$fetch" "$work/with blank"

# --- the catalogue -----------------------------------------------------------------------------

catalogue() {
    "$program" --lists "$work/got/lists" --icons "$work/got/icons" \
        --debtags "$work/got/debtags.vocabulary" "$@"
}
runs 0 "27 items, 1 with a picture, 8 users" catalogue --out "$work/catalogue" --report
grep -q '^items 27 (18 train, 9 test), 1 with a picture' "$work/out" || wrong "the report: $(cat "$work/out")"
grep -q 'for training [1-9][0-9]* texts, [1-9][0-9]* pairs, ' "$work/log" || wrong "no word of training"
[ -f "$work/catalogue/icons/acornpad_acornpad.png" ] || wrong "the picture is not in the catalogue"
runs 2 "are needed" "$program" --lists "$work/got/lists"
runs 2 "did you mean" catalogue --out "$work/catalogue" --reports
runs 2 "takes options only" catalogue --out "$work/catalogue" more
runs 1 "Packages" "$program" --lists "$work" --icons "$work" --debtags "$work" --out "$work/other"
runs 0 "" "$program" --help
grep -q -- '--debtags FILE' "$work/out" || wrong "--help does not show --debtags"

echo "ok: $n runs"
