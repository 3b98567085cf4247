#!/usr/bin/env python3
"""Writes engine/tokenizer_lowercase.inc: the lower case of the tokenizers library.

    python tests/data/generator/unicode_lowercase.py > engine/tokenizer_lowercase.inc

Every character is put to the library, as in unicode_classes.py: its standard library knows letters
of Unicode 16 and 17 that the utf8proc of today's distributions does not.
"""

from tokenizers import normalizers


def lowered() -> dict[str, str]:
    """The characters that Lowercase changes, and what it makes of them."""
    normalizer = normalizers.Lowercase()
    characters = (chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000)
    answers = ((c, normalizer.normalize_str(c)) for c in characters)
    return {c: answer for c, answer in answers if answer != c}


def main() -> None:
    runs: list[list[int]] = []  # first, last, step, what is added
    for character, answer in lowered().items():
        if character == "\u0130":  # the one that becomes two is written out in C
            assert answer == "i\u0307"
            continue
        code, change = ord(character), ord(answer) - ord(character)
        if runs and runs[-1][3] == change:
            first, last, step, _ = runs[-1]
            if code - last == step or (first == last and code - last <= 2):
                runs[-1][1:3] = [code, code - last]
                continue
        runs.append([code, code, 1, change])

    print("/* tokenizer_lowercase.inc - written by tests/data/generator/unicode_lowercase.py.")
    print(" *")
    print(" * First and last code point of each run, the step from one to the next, and what lower")
    print(" * case adds to them.")
    print(" * SPDX-License-Identifier: Apache-2.0 */")
    for at in range(0, len(runs), 3):
        print(" ".join(
            "{0x%04X, 0x%04X, %d, %d}," % tuple(run) for run in runs[at : at + 3]))


if __name__ == "__main__":
    main()
