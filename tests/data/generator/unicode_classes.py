#!/usr/bin/env python3
"""Writes engine/tokenizer_classes.inc: which class the tokenizers library puts each character in.

    python tests/data/generator/unicode_classes.py > engine/tokenizer_classes.inc

The library asks three sources, each with the Unicode version it was built with: Oniguruma (\\p{L},
\\p{N}, \\s in patterns), the regex crate (\\w and \\s beside added tokens) and the standard library
(digits). Nothing is computed here: every character is put to the library, and the answers are
written down, so that ids do not depend on the Unicode version of a C library.
"""

from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers

CHARACTERS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
LETTER, NUMBER, SPACE, WORD, NUMERIC = 1, 2, 4, 8, 16
NAMES = {LETTER: "L", NUMBER: "N", SPACE: "S", WORD: "W", NUMERIC: "D"}
STEP = 1024


def batches():
    for start in range(0, len(CHARACTERS), STEP):
        yield CHARACTERS[start : start + STEP]


def matched_by(pattern: str) -> set[int]:
    split = pre_tokenizers.Split(Regex(pattern), "removed", invert=True)
    return {
        ord(character)
        for batch in batches()
        for piece, _ in split.pre_tokenize_str("".join(map(chr, batch)))
        for character in piece
    }


def beside_token(**flags) -> set[int]:
    """Characters c for which "aacQZ!" gives the added token QZ at its own place."""
    tokenizer = Tokenizer(models.BPE(vocab={"a": 0}, merges=[]))
    tokenizer.add_tokens([AddedToken("QZ", normalized=False, **flags)])
    number = tokenizer.token_to_id("QZ")
    found = set()
    for batch in batches():
        encoding = tokenizer.encode("".join(f"aa{chr(c)}QZ!" for c in batch))
        starts = {o[0] for i, o in zip(encoding.ids, encoding.offsets) if i == number}
        found |= {c for at, c in enumerate(batch) if 6 * at + 3 in starts}
    return found


def numeric() -> set[int]:
    digits = pre_tokenizers.Digits(individual_digits=True)
    return {
        ord(piece)
        for batch in batches()
        for piece, _ in digits.pre_tokenize_str("aa" + "aa".join(map(chr, batch)) + "aa")
        if len(piece) == 1
    }


def main() -> None:
    everything = set(CHARACTERS)
    letters, numbers, spaces = matched_by(r"\p{L}"), matched_by(r"\p{N}"), matched_by(r"\s")
    words = everything - beside_token(single_word=True)
    assert spaces == everything - beside_token(lstrip=True)  # both sources agree on whitespace
    digits = numeric()
    assert numbers <= digits
    classes = [
        (letters, LETTER), (numbers, NUMBER), (spaces, SPACE), (words, WORD),
        (digits - numbers, NUMERIC),
    ]

    ranges: list[list[int]] = []
    for c in CHARACTERS:
        flags = sum(flag for members, flag in classes if c in members)
        if not flags:
            continue
        if ranges and ranges[-1][1] == c - 1 and ranges[-1][2] == flags:
            ranges[-1][1] = c
        else:
            ranges.append([c, c, flags])

    print("/* tokenizer_classes.inc - written by tests/data/generator/unicode_classes.py.")
    print(" *")
    print(" * First and last code point of each run, and its classes. Runs without a class are left out.")
    print(" * SPDX-License-Identifier: Apache-2.0 */")
    for at in range(0, len(ranges), 3):
        print(" ".join(
            "{0x%04X, 0x%04X, %s}," % (
                first, last, " | ".join(name for bit, name in NAMES.items() if flags & bit))
            for first, last, flags in ranges[at : at + 3]
        ))


if __name__ == "__main__":
    main()
