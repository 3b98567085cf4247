"""The texts that every tokenizer is asked to encode: (name, text) pairs.

Each one is there because some tokenizer, somewhere, got it wrong. Only characters whose class
is the same in every Unicode version of the last twenty years are drawn at random, so that the
expected ids do not depend on the Unicode tables of one regex library.
"""

import functools
import random
import sys
import unicodedata

PLAIN = [
    ("empty", ""),
    ("one letter", "a"),
    ("one space", " "),
    ("one newline", "\n"),
    ("sentence", "The red kettle boils water in three minutes."),
    ("question", "How do I replace the battery of the watch?"),
    ("yes", "yes"),
    ("no", "no"),
    ("capital yes", "Yes"),
    ("space yes", " yes"),
    ("all caps", "THE GARDEN CHAIR IS MADE OF PAINTED STEEL"),
    ("camel case", "getItemScoreForUserQuery"),
    ("snake case", "get_item_score_for_user_query"),
    ("word not in the corpus", "antidisestablishmentarianism"),
    ("word tokens without merges", "mixrank ranking rerank 777 7777"),
    ("punctuation", "Wait... what?! (No -- really; yes: 'fine', \"good\" & <ok> [x] {y} /z\\ |w|)"),
    ("ellipsis and dashes", "one… two – three — four “quoted” ‘it’s’"),
    ("prompt text", "Given a web search query, retrieve relevant passages that answer the query"),
]

CONTRACTIONS = [
    ("contractions", "I'm you're he's we've they'll she'd isn't"),
    ("upper contractions", "I'M YOU'RE HE'S WE'VE THEY'LL SHE'D ISN'T"),
    ("mixed case contractions", "it'S we'Ve they'Ll you'rE"),
    ("space before contraction", "the dog 's bowl 'LL 's 't 'RE"),
    ("contraction then letters", "'since 'tis 'llama 'rest 'dog 'move 'ved"),
    ("upper contraction then letters", "'STORE 'Llama 'REST 'DOG 'Move"),
    ("contraction at the start", "'s"),
    ("long s folds to s", "it'\u017f \u017fo 'S"),  # U+017F matches (?i:'s) by case folding
    ("two apostrophes", "rock ''n'' roll ''s"),
    ("typographic apostrophe", "it’s they’ll"),
]

DIGITS = [
    ("digits", "1 12 123 1234 12345 123456 1234567"),
    ("digits in words", "abc123def x1 1x 3rd v2.10.3"),
    ("date and price", "2025-03-14 at $1,299.99 or 50%"),
    ("long digit run", "31415926535897932384626433832795"),
    ("other digits", "\u0661\u0662\u0663 \u0967\u0968\u0969 \uff11\uff12\uff13"),
    ("letter-like numbers", "\u00bd\u00bd \u2167\u2168! \u2460 x\u00b2\u00b3 10\u2070 \u2185"),
    ("space before digits", "a  12  3"),
]

WHITESPACE = [
    ("leading space", " leading"),
    ("three leading spaces", "   leading"),
    ("trailing space", "trailing "),
    ("three trailing spaces", "trailing   "),
    ("double spaces", "two  spaces  between  words"),
    ("40 spaces", " " * 40),
    ("17 spaces then a word", " " * 17 + "word"),
    ("tab", "a\tb\t\tc\t"),
    ("tab and spaces", "a \t b\t  \tc"),
    ("newlines", "a\nb\n\nc\n\n\n"),
    ("crlf", "a\r\nb\r\n\r\nc"),
    ("lone cr", "a\rb\r\rc\n\rd"),
    ("newline then spaces", "a\n    b\n        c\n"),
    ("spaces then newline", "a   \n   \n  b"),
    ("punctuation then newlines", "end.\n\nnext!\r\n?\n"),
    ("space before newline", " \n \n"),
    ("only whitespace mixed", " \t\n\r \n\t "),
    ("no-break space", "a\u00a0b \u00a0 c\u00a0\u00a0d"),
    ("ideographic space", "\u3000a\u3000\u3000b\u3000"),
    ("typographic spaces", "a\u2002b\u2003c\u2009d\u200ae\u202ff\u205fg\u1680h"),
    ("line separators", "a\u2028b\u2029c\u0085d\u000be\u000cf"),
    ("space then punctuation",
     "\u000b!\u000c!\u0085!\u00a0!\u1680!\u2003!\u2028!\u2029!\u202f!\u205f!\u3000!"),
    # None of these is White_Space, although some libraries think so (U+180E in PCRE's \h,
    # U+001C..U+001F in Python).
    ("not whitespace", "a\u200bb\u180ec\u2060d\ufeffe\u001cf\u001dg\u001eh\u001fi"),
    ("not whitespace, spaces around", "a \u180e b \u200b c \u001c d"),
    ("not whitespace then punctuation", "\u180e!a\u200b!a\ufeff!a\u001c!a\u001f!"),
    ("metaspace character", "a\u2581b \u2581 c\u2581\u2581"),
]

SCRIPTS = [
    ("chinese", "搜索服务按照查询对商品进行排序。"),
    ("chinese not in the corpus", "\u9f98\u9f49\u7c72\u9a6b\u9ebb \U00020000\U0002a6d6"),
    ("chinese and latin", "商品abc搜索 123个"),
    ("japanese", "検索サービスは商品を並べ替えます。"),
    ("half-width katakana", "\uff76\uff9e\uff77\uff9e \uff8a\uff9f"),
    ("full-width latin", "ＡＢｃ！"),
    ("korean", "검색 서비스는 상품을 정렬합니다."),
    ("korean jamo", "\u1112\u1161\u11ab\u1100\u1173\u11af"),  # NFC composes them to two syllables
    ("arabic", "خدمة البحث ترتب المنتجات"),
    ("arabic vowel marks",
     "\u0627\u0644\u0652\u0639\u064e\u0631\u064e\u0628\u0650\u064a\u0651\u064e\u0629\u064f"),
    ("hebrew points", "\u05e9\u05c1\u05b8\u05dc\u05d5\u05b9\u05dd"),
    ("hindi", "खोज सेवा उत्पादों को"),
    ("thai", "บริการค้นหาที่ดี"),
    ("russian", "Сервис сортирует товары."),
    ("greek", "Η υπηρεσία Σςσ"),
    ("turkish dotted i", "İstanbul ışık"),
    ("german", "Größere Füße, STRASSE ẞ"),
    ("vietnamese", "Tiếng Việt rất đẹp"),
    ("right-to-left marks", "abc \u200f\u05d0\u05d1\u200e def \u202bxyz\u202c"),
]

COMBINING = [
    ("composed", "caf\u00e9 \u00c5ngstr\u00f6m \u00f1 \u1e69"),
    ("decomposed", "cafe\u0301 A\u030angstro\u0308m n\u0303 s\u0323\u0307"),
    ("marks in the other order", "s\u0307\u0323 a\u0301\u0323 q\u0307\u0323"),
    ("mark at the start", "\u0301abc"),
    ("mark after a space", "a \u0301b \u0308"),
    ("mark after a digit", "1\u0301 2\u20e3"),
    ("many marks", "Z\u0351\u036b\u0343\u036a\u0302A\u0334\u0335\u031e\u0355L\u0333G\u0322\u0321O"),
    # NFC replaces these by other characters and never composes the last two back.
    ("canonical singletons", "\u212b \u2126 \u1fef \u0958 \u2adc"),
    ("compatibility characters stay", "\ufb01 \u2122 \u00b5 \u3392"),
]

EMOJI = [
    ("emoji", "\U0001f600 \U0001f603\U0001f44d"),
    ("emoji not in the corpus", "\U0001f98a\U0001f680 go \U0001f389!"),
    ("zwj family", "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 family"),
    ("skin tone", "\U0001f44b\U0001f3fd\U0001f469\U0001f3ff\u200d\U0001f52c"),
    ("flags", "\U0001f1e9\U0001f1ea\U0001f1eb\U0001f1f7 \U0001f1ef\U0001f1f5"),
    ("flag of tags", "\U0001f3f4\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f"),
    ("variation selectors", "\u2764\ufe0f \u2764\ufe0e \u263a 1\ufe0f\u20e3"),
    ("emoji between words", "good\U0001f600morning \U0001f600s"),
]

ODD_CODE_POINTS = [
    ("nul inside", "a\u0000b"),
    ("only nul", "\u0000"),
    ("nul run and spaces", " \u0000\u0000 x"),
    ("control characters", "\u0001\u0002\u0007\u0008\u001b[31mred\u001b[0m\u007f\u0080\u009f"),
    ("byte order mark", "\ufefftext \ufeff"),
    ("replacement character", "bad \ufffd\ufffd byte\ufffd"),
    ("private use", "\ue000\uf8ff \U000f0000\U0010fffd"),
    ("unassigned", "\u0378x\u0379 \U00050000"),
    ("noncharacters", "\uffff\ufdd0 \U0010ffff"),
    ("soft hyphen and joiners", "co\u00adop\u200dera\u200ction"),
    ("plane boundaries", "\u007f\u0080\u07ff\u0800\uffee\U00010000\U0010fffd"),
]

CODE = [
    ("c code", "for (int i = 0; i < n; i++) {\n    sum += a[i] * b[i];\n}\n"),
    ("tab indented code", "\tif (x)\n\t\treturn -1;\r\n\t}"),
    ("python", 'def f(x):\n    return {"key": [1, 2.5e-3], \'k\': None}  # note\n'),
    ("json", '{"a":[1,2,{"b":"\\u00e9\\n"}],"c":null}'),
    ("html", "<html><body class=\"x\">text &amp; more</body></html>"),
    ("url", "https://example.org/search?q=red+kettle&page=2#top"),
    ("mail and path", "mail user.name@example.org about /usr/share/doc/readme.txt or C:\\dir\\f"),
    ("base64", "SGVsbG8sIHdvcmxkIQ=="),
    ("operators", "a!=b&&c||!d<<=2>>>1**x//y%z^~w"),
    ("markdown", "# Title\n\n- **bold** _it_\n- `code`\n\n| a | b |\n|---|---|\n"),
]

# Names that some tokenizer treats as tokens; for most of them they are plain text.
FOREIGN_SPECIALS = [
    ("chatml", "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"),
    ("llama 3 header", "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nhi<|eot_id|>"),
    ("sentencepiece names", "<s>hello</s> <unk> <s> </s>"),
    ("byte token names", "<0x0A> <0x41>x<0xFF>"),
    ("almost special", "<|im_start |> <|im_start| <|IM_START|> < |im_end|> <|im_|>"),
    ("image placeholder", "USER: <image>\nWhat is it? ASSISTANT:"),
]

LONG = [
    ("2000 letters in no order", "".join(random.Random(1).choices("etaoinshrdlu", k=2000))),
    ("600 equal letters", "a" * 600),
    ("repeated word", "the " * 60),
    ("repeated emoji", "\U0001f600" * 30),
    ("repeated punctuation", "=" * 70 + "-" * 33 + "!" * 17),
    ("repeated chinese", "商品" * 40),
]

# The texts that show whether a pre-tokeniser splits in the right places: a split that is
# missing shows in all of them, one too many in those of the second list.
SPLIT_SENSITIVE = [
    *CONTRACTIONS, *DIGITS[:2], *WHITESPACE, *COMBINING,
    *[pair for pair in SCRIPTS + DIGITS if pair[0] in ("hindi", "thai", "letter-like numbers")],
]
UNSPLIT_SENSITIVE = [pair for pair in WHITESPACE if pair[0] == "not whitespace then punctuation"]

SHORT_NAMES = {
    "empty", "sentence", "yes", "contractions", "digits in words", "newlines", "crlf",
    "three trailing spaces", "decomposed", "zwj family", "nul inside", "chinese", "chatml",
}


@functools.cache
def random_unicode(count: int) -> list[tuple[str, str]]:
    """Strings of characters that had the same class in Unicode 3.2 as they have now."""
    stable = [
        chr(c)
        for c in range(32, sys.maxunicode + 1)
        if (category := unicodedata.category(chr(c))) == unicodedata.ucd_3_2_0.category(chr(c))
        and category not in ("Cn", "Cs", "Co", "Cc")
    ]
    # Most of the list is Han and Hangul: draw a block of 64 neighbours first, so that every
    # script has the same chance.
    blocks = sorted({ord(c) // 64 for c in stable})
    by_block = {b: [c for c in stable if ord(c) // 64 == b] for b in blocks}
    rng = random.Random(20)
    texts = []
    for i in range(count):
        words = []
        for _ in range(rng.randint(1, 6)):
            block = by_block[rng.choice(blocks)]
            words.append("".join(rng.choices(block, k=rng.randint(1, 6))))
        separator = rng.choice(["", " ", " ", "\n", "  ", "1"])
        texts.append((f"random unicode {i}", separator.join(words)))
    return texts


def around_tokens(tokens: list[str]) -> list[tuple[str, str]]:
    """Texts that contain the tokenizer's own added tokens, which are the ones it may parse."""
    if not tokens:
        return []
    first, last, middle = tokens[0], tokens[-1], tokens[len(tokens) // 2]
    return [
        ("every added token, adjacent", "".join(tokens)),
        ("every added token, spaces between", " ".join(tokens)),
        ("every added token between letters", "x" + "x".join(tokens) + "x"),
        ("every added token, double spaces", "a  " + "  b  ".join(tokens) + "  c"),
        ("every added token, newlines", "\n" + "\n".join(tokens) + "\n"),
        ("added token alone", first),
        ("added token at the end", "the end" + last),
        ("added token at the start", last + "the start"),
        ("added token at the start, space", last + " the start"),
        ("added token twice", middle + middle),
        ("added token without its end", "x" + first[:-1] + " " + middle[:-1]),
        ("added token in the other case", first.swapcase() + " " + last.swapcase()),
        ("added token cut by a mark", first[:1] + "\u0301" + first[1:] + last + "\u0301"),
        ("added token after nul", "\u0000" + first + "\u0000"),
        ("added token in emoji", "\U0001f600" + middle + "\U0001f600"),
    ]


def all_texts(added_tokens: list[str], short: bool = False) -> list[tuple[str, str]]:
    groups = [
        PLAIN, CONTRACTIONS, DIGITS, WHITESPACE, SCRIPTS, COMBINING, EMOJI, ODD_CODE_POINTS,
        CODE, FOREIGN_SPECIALS, LONG, random_unicode(14),
    ]
    texts = [pair for group in groups for pair in group]
    if short:
        texts = [pair for pair in texts if pair[0] in SHORT_NAMES]
    return texts + around_tokens(added_tokens)
