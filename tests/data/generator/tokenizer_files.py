"""tokenizers/<case>/: a tokenizer.json of each shape that real checkpoints ship, and what the
tokenizers library makes of a few hundred texts with it.

Vocabulary and merges are trained; everything around them (normaliser, pre-tokeniser, added
tokens, post-processor, decoder) is written out here as the real files have it, because that is
the part a reader has to get right.
"""

import json
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from . import corpus, texts, unicode_lowercase
from .common import empty_folder, random_state, write_jsonl

QWEN2_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3_PATTERN = QWEN2_PATTERN.replace(r"|\p{N}|", r"|\p{N}{1,3}|")

BYTE_MERGES = 170
SENTENCEPIECE_MERGES = 380


# The parts of a tokenizer.json, spelled as the library writes them.

def byte_level(**changes) -> dict:
    part = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False}
    return part | {"use_regex": True} | changes


def split(pattern: str) -> dict:
    part = {"type": "Split", "pattern": {"Regex": pattern}}
    return part | {"behavior": "Isolated", "invert": False}


def sequence(kind: str, *parts: dict) -> dict:
    return {"type": "Sequence", kind: list(parts)}


def replace(pattern: str, content: str) -> dict:
    return {"type": "Replace", "pattern": {"String": pattern}, "content": content}


def template(before: list[tuple[str, int]] = (), after: list[tuple[str, int]] = ()) -> dict:
    """Puts special tokens around the text, and around each of two texts."""
    def around(which: str, type_id: int) -> list[dict]:
        def special(token):
            return {"SpecialToken": {"id": token, "type_id": type_id}}

        return [
            *[special(token) for token, _ in before],
            {"Sequence": {"id": which, "type_id": type_id}},
            *[special(token) for token, _ in after],
        ]

    return {
        "type": "TemplateProcessing",
        "single": around("A", 0),
        "pair": around("A", 0) + around("B", 1),
        "special_tokens": {
            token: {"id": token, "ids": [number], "tokens": [token]}
            for token, number in [*before, *after]
        },
    }


@dataclass
class Added:
    """An entry of added_tokens; id None means the next free one after the vocabulary."""
    content: str
    special: bool = True
    id: int | None = None
    flags: dict = field(default_factory=dict)  # lstrip, rstrip, single_word, normalized


@dataclass
class Recipe:
    name: str
    vocab: dict[str, int]
    merges: list[list[str]]
    added: list[Added]
    pre_tokenizer: dict | None
    decoder: dict
    normalizer: dict | None = None
    post_processor: dict | None = None
    model: dict = field(default_factory=dict)  # changes to the BPE options
    old_format: bool = False  # merges as "a b" strings and no keys that came later
    short: bool = False  # a small set of texts: the recipe differs from another one in one part

    def added_tokens(self) -> list[dict]:
        entries = []
        next_id = max(self.vocab.values()) + 1
        for token in self.added:
            number = token.id if token.id is not None else next_id
            next_id = max(next_id, number + 1)
            flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
            entries.append(
                {"id": number, "content": token.content, **flags, **token.flags,
                 "special": token.special}
            )
        return entries

    def to_json(self, with_added_tokens: bool = True) -> str:
        bpe = {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
            "ignore_merges": False, **self.model, "vocab": self.vocab, "merges": self.merges,
        }
        if self.old_format:
            bpe["merges"] = [" ".join(pair) for pair in self.merges]
            for key in ("byte_fallback", "ignore_merges"):
                if not bpe[key]:
                    del bpe[key]
        whole = {
            "version": "1.0", "truncation": None, "padding": None,
            "added_tokens": self.added_tokens() if with_added_tokens else [],
            "normalizer": self.normalizer, "pre_tokenizer": self.pre_tokenizer,
            "post_processor": self.post_processor, "decoder": self.decoder, "model": bpe,
        }
        if self.old_format:
            return json.dumps(whole, indent=2, ensure_ascii=False)
        # The library's own spelling, which is also the proof that it reads ours.
        return Tokenizer.from_str(json.dumps(whole)).to_str(pretty=True)

    def tokenizer(self) -> Tokenizer:
        return Tokenizer.from_str(self.to_json())

    def plain_tokenizer(self) -> Tokenizer:
        """The same, but text that spells an added token is text.

        The list of added tokens is what the library cuts a text by before anything else, so
        the same file with an empty list does it. (Its switch encode_special_tokens spares the
        tokens that are not special, such as <think>.)
        """
        return Tokenizer.from_str(self.to_json(with_added_tokens=False))

    def token_id(self, content: str) -> int:
        """The id of an added token, or of a text that is a single token."""
        (number,) = self.tokenizer().encode(content, add_special_tokens=False).ids
        return number

    def vocab_rows(self) -> int:
        """Vocabulary rows of a model for it: all ids, rounded up as real checkpoints do."""
        highest = max([*self.vocab.values(), *(t["id"] for t in self.added_tokens())])
        return -(-(highest + 1) // 64) * 64


# Training

def train(text: list[str], vocab_size: int, pre_tokenizer, normalizer=None, alphabet=()):
    """Plain BPE training: returns (vocabulary, merges)."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        initial_alphabet=list(alphabet),
        special_tokens=[],
        show_progress=False,
    )
    tokenizer.train_from_iterator(text, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], [list(pair) for pair in model["merges"]]


def boundary_merges(pre_tokenizer) -> list[list[str]]:
    """Merges of the bytes on either side of every place where the pre-tokeniser splits.

    Training never learns a merge across such a place, so with a small vocabulary a reader that
    forgets a split still gets the right ids. With these merges, first in order, it does not.
    A few texts get merges inside their pieces as well, so that a split too many shows.
    """
    pairs = {}
    for _, text in texts.SPLIT_SENSITIVE:
        pieces = [piece for piece, _ in pre_tokenizer.pre_tokenize_str(text)]
        for left, right in pairwise(pieces):
            pairs[left[-1], right[0]] = None
    for _, text in texts.UNSPLIT_SENSITIVE:
        for piece, _ in pre_tokenizer.pre_tokenize_str(text):
            pairs |= dict.fromkeys(pairwise(piece))
    return [list(pair) for pair in pairs]


def train_byte_level(pre_tokenizer):
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    _, learned = train(
        corpus.BYTE_LEVEL, len(alphabet) + BYTE_MERGES, pre_tokenizer, alphabet=alphabet
    )
    merges = boundary_merges(pre_tokenizer)
    merges += [pair for pair in learned if pair not in merges]
    tokens = dict.fromkeys(alphabet + ["".join(pair) for pair in merges])
    return {token: number for number, token in enumerate(tokens)}, merges


def split_then_bytes(pattern: str):
    return pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(pattern), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])


def train_sentencepiece():
    """Pieces as SentencePiece makes them: 3 control tokens, 256 bytes, merged pieces, characters.

    Words are "▁word"; a run of spaces is a word of its own, so that "▁▁" becomes a piece.
    """
    lines = corpus.sentencepiece_lines()
    characters = len(set("".join(lines))) + 1
    learned, merges = train(
        lines,
        characters + SENTENCEPIECE_MERGES,
        pre_tokenizers.Split(Regex("▁?[^▁]+|▁+(?=▁)|▁"), "isolated"),
        normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]),
    )
    pieces = sorted(learned, key=learned.get)
    merged = [piece for piece in pieces if len(piece) > 1]
    single = [piece for piece in pieces if len(piece) == 1]
    order = ["<unk>", "<s>", "</s>", *[f"<0x{b:02X}>" for b in range(256)], *merged, *single]
    return {piece: number for number, piece in enumerate(order)}, merges


# The recipes

def gpt2() -> Recipe:
    vocab, merges = train_byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False))
    end = len(vocab)
    return Recipe(
        name="gpt2",
        vocab=vocab | {"<|endoftext|>": end},
        merges=merges,
        added=[Added("<|endoftext|>", id=end)],
        pre_tokenizer=byte_level(trim_offsets=True),
        post_processor=byte_level(add_prefix_space=True),
        decoder=byte_level(add_prefix_space=True, trim_offsets=True),
        model={"continuing_subword_prefix": "", "end_of_word_suffix": ""},
        old_format=True,
    )


def qwen2(name: str = "qwen2") -> Recipe:
    vocab, merges = train_byte_level(split_then_bytes(QWEN2_PATTERN))
    assert "yes" in vocab and "no" in vocab  # the reranker reads its score from these two
    return Recipe(
        name=name,
        vocab=vocab,
        merges=merges,
        added=[
            Added("<|endoftext|>"),
            Added("<|im_start|>"),
            Added("<|im_end|>"),
            Added("<think>", special=False),
            Added("</think>", special=False),
        ],
        normalizer={"type": "NFC"},
        pre_tokenizer=sequence("pretokenizers", split(QWEN2_PATTERN), byte_level(use_regex=False)),
        post_processor=byte_level(use_regex=False),
        decoder=byte_level(use_regex=False),
        model={"continuing_subword_prefix": "", "end_of_word_suffix": ""},
    )


def qwen3_embedding() -> Recipe:
    """qwen2 with the post-processor of an embedding model: it closes every text with a token."""
    recipe = qwen2("qwen3-embedding")
    end = recipe.token_id("<|endoftext|>")
    recipe.post_processor = sequence(
        "processors", byte_level(use_regex=False), template(after=[("<|endoftext|>", end)])
    )
    recipe.short = True
    return recipe


def llama3() -> Recipe:
    vocab, merges = train_byte_level(split_then_bytes(LLAMA3_PATTERN))
    # Words that no merge produces: with ignore_merges they are found all the same.
    for word in ("mixrank", "Ġranking", "Ġrerank", "777"):
        assert word not in vocab
        vocab[word] = len(vocab)
    begin = len(vocab)
    return Recipe(
        name="llama3",
        vocab=vocab,
        merges=merges,
        added=[
            Added("<|begin_of_text|>", id=begin),
            Added("<|end_of_text|>"),
            Added("<|start_header_id|>"),
            Added("<|end_header_id|>"),
            Added("<|eot_id|>"),
        ],
        pre_tokenizer=sequence(
            "pretokenizers", split(LLAMA3_PATTERN), byte_level(use_regex=False, trim_offsets=True)
        ),
        post_processor=sequence(
            "processors",
            byte_level(trim_offsets=False, add_prefix_space=True),
            template(before=[("<|begin_of_text|>", begin)]),
        ),
        decoder=byte_level(add_prefix_space=True, trim_offsets=True),
        model={"ignore_merges": True},
    )


def smollm2() -> Recipe:
    """Special tokens come first, inside the vocabulary; digits are split singly."""
    vocab, merges = train_byte_level(pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
    ]))
    first = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>", "<file_sep>"]
    shifted = {token: number + len(first) for token, number in vocab.items()}
    return Recipe(
        name="smollm2",
        vocab={token: number for number, token in enumerate(first)} | shifted,
        merges=merges,
        added=[Added(token, id=number) for number, token in enumerate(first)],
        pre_tokenizer=sequence(
            "pretokenizers",
            {"type": "Digits", "individual_digits": True},
            byte_level(trim_offsets=True),
        ),
        decoder=byte_level(add_prefix_space=True, trim_offsets=True),
        old_format=True,
    )


def llama_sentencepiece(name: str) -> Recipe:
    vocab, merges = train_sentencepiece()
    return Recipe(
        name=name,
        vocab=vocab,
        merges=merges,
        added=[Added("<unk>", id=0), Added("<s>", id=1), Added("</s>", id=2)],
        normalizer=sequence(
            "normalizers", {"type": "Prepend", "prepend": "▁"}, replace(" ", "▁")
        ),
        pre_tokenizer=None,
        post_processor=template(before=[("<s>", 1)]),
        decoder=sequence(
            "decoders",
            replace("▁", " "),
            {"type": "ByteFallback"},
            {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        ),
        model={"unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True},
    )


def llama_sp() -> Recipe:
    recipe = llama_sentencepiece("llama-sp")
    # As Vicuna and LLaVA have them. A normalized token is searched for in normalised text, in
    # its own normalised form: that is "▁<pad>", so it is found at the start of a piece of
    # text or after a space, and takes that space with it.
    recipe.added += [
        Added("<image>"),
        Added("<pad>", flags={"normalized": True}),
    ]
    recipe.old_format = True
    return recipe


def llama_sp_metaspace() -> Recipe:
    """Newer exports of the same model: only the first piece of a text gets the "▁"."""
    recipe = llama_sentencepiece("llama-sp-metaspace")
    recipe.normalizer = None
    recipe.pre_tokenizer = {
        "type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False,
    }
    return recipe


def added_flags() -> Recipe:
    """qwen2 with one added token for each flag that changes how tokens are found."""
    recipe = qwen2("added-flags")
    recipe.added = [
        Added("<|endoftext|>"),
        Added("<mask>", flags={"lstrip": True}),
        Added("<sep>", flags={"rstrip": True}),
        Added("<both>", flags={"lstrip": True, "rstrip": True}),
        Added("kettle", special=False, flags={"single_word": True}),
        Added("<word>", flags={"single_word": True}),
        # Found in the normalised text: spelled decomposed here and in either form there.
        Added("cafe\u0301", special=False, flags={"normalized": True}),
        # The longest one wins where two start at the same place.
        Added("<x>"),
        Added("<x><y>"),
        Added("<tool_call>", special=False),
    ]
    return recipe


def nfc_lowercase() -> Recipe:
    """qwen2 in lower case: a normalized token is found in any case, another one in its own."""
    recipe = qwen2("nfc-lowercase")
    recipe.normalizer = sequence("normalizers", {"type": "NFC"}, {"type": "Lowercase"})
    recipe.added = [
        Added("<|endoftext|>"),
        Added("<|Sep|>"),
        Added("Cafe\u0301", special=False, flags={"normalized": True}),
    ]
    recipe.short = True
    return recipe


LOWERCASE_TEXTS = [
    ("capitals", "The RED Kettle boils WATER in THREE Minutes"),
    ("upper contractions", "I'M YOU'RE HE'S WE'VE THEY'LL SHE'D ISN'T"),
    ("camel case", "getItemScoreForUserQuery HTTPServer2XML"),
    ("two characters from one", "\u0130stanbul \u0130\u0130x I\u0307 \u0130\u0307"),
    ("no final sigma", "\u03a3\u038a\u03a3\u03a5\u03a6\u039f\u03a3 \u03a3"),
    ("longer and shorter", "\u2126 \u212a\u212b \u023a\u023e\u1e9e \u2c62\u2c6f"),
    ("title case and signs", "\u01c5\u01c4 \u2160\u216f \u24b6\u24cf \uff21 \u1f88\u1fbc"),
    ("beyond the first plane", "\U00010400\U00010427 \U0001e900 \U00016e40"),
    ("Unicode 16 and 17", "\u1c89\ua7cb\ua7ce\ua7dc \U00010d50\U00010d65 \U00016ea0"),
    ("marks that compose", "E\u0301A\u030aS\u0323\u0307 CAFE\u0301S \u0301E"),
    ("no case", "\u5546\u54c1 \u0645 \U0001f600 123 \u0000 \u00df\u0149"),
    ("normalized token in any case", "caf\u00e9 CAFE\u0301 xCaf\u00c9s CAF\u00c9"),
    ("other tokens in their case", "<|Sep|><|sep|><|SEP|><|ENDOFTEXT|><|endoftext|>"),
    ("long run", "AbC" * 300 + "\u0130" * 100),
]


ADDED_FLAGS_TEXTS = [
    ("lstrip eats spaces before", "a  <mask>  b \n\t<mask>\nc"),
    ("rstrip eats spaces after", "a  <sep>  b\n<sep>\n \tc"),
    ("both sides", "a \u3000<both>\u00a0\n b"),
    ("strips meet", "a <sep>   <mask> b <both> <both> c"),
    ("strip at the edges", "  <mask>  "),
    ("single word", "kettle kettles teakettle kettle, kettle_x kettle1 (kettle) \u00e9kettle"),
    ("single word token", "a<word>b <word> <word>, x<word> <word>x <word><word>"),
    ("single word beside other scripts", "\u5546kettle kettle\u5546 kettle\u0301 \u0301kettle"),
    ("normalized composed", "caf\u00e9 caf\u00e9s xcaf\u00e9"),
    ("normalized decomposed", "cafe\u0301 cafe\u0301s cafe"),
    ("overlapping", "<x><y> <x> <y> <x><x><y>"),
    ("tool call", "<tool_call>{\"name\": 1}</tool_call><tool_call>"),
    ("all together", "  <mask>kettle<sep>  caf\u00e9<x><y><tool_call>  <|endoftext|>"),
]

RECIPES = [
    gpt2, qwen2, qwen3_embedding, llama3, smollm2, llama_sp, llama_sp_metaspace, added_flags,
    nfc_lowercase,
]


# Expected results

def case_rows(recipe: Recipe) -> list[dict]:
    tokenizer = recipe.tokenizer()
    plain = recipe.plain_tokenizer()
    pairs = texts.all_texts([token.content for token in recipe.added], recipe.short)
    if recipe.name == "added-flags":
        pairs = pairs + ADDED_FLAGS_TEXTS
    if recipe.name == "nfc-lowercase":
        pairs = pairs + LOWERCASE_TEXTS
    rows = []
    for name, text in pairs:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        rows.append({
            "name": name,
            "text": text,
            "ids": ids,
            "ids_add_special": tokenizer.encode(text, add_special_tokens=True).ids,
            "ids_no_special_parsing": plain.encode(text, add_special_tokens=False).ids,
            "decoded": tokenizer.decode(ids, skip_special_tokens=False),
            "decoded_skip_special": tokenizer.decode(ids, skip_special_tokens=True),
        })
    return rows


def decode_rows(recipe: Recipe, rows: list[dict]) -> list[dict]:
    """Id sequences that no text gives: characters cut in the middle, and random ids."""
    tokenizer = recipe.tokenizer()
    by_name = {row["name"]: row["ids"] for row in rows}
    family, chinese = by_name["zwj family"], by_name["chinese"]
    # A slot marker is no id: only ids that exist are drawn.
    every_id = sorted(tokenizer.get_vocab(with_added_tokens=True).values())
    rng = random_state(recipe.name, "decode")
    sequences = [[], family[:1], family[:2], family[:3], family[1:], family[2:9], chinese[:4],
                 chinese[1:], by_name["sentence"][3:]]
    sequences += [
        [every_id[i] for i in rng.randint(0, len(every_id), size=n)]
        for n in (1, 1, 2, 3, 5, 8, 13, 21, 34)
    ]
    return [
        {
            "ids": ids,
            "decoded": tokenizer.decode(ids, skip_special_tokens=False),
            "decoded_skip_special": tokenizer.decode(ids, skip_special_tokens=True),
        }
        for ids in sequences
    ]


def lowercase_rows() -> list[dict]:
    """Every character that Lowercase changes, 64 a row, and what it makes of the row."""
    pairs = list(unicode_lowercase.lowered().items())
    rows = [pairs[at : at + 64] for at in range(0, len(pairs), 64)]
    return [
        {"text": "".join(c for c, _ in row), "lower": "".join(answer for _, answer in row)}
        for row in rows
    ]


def write(root: Path) -> None:
    for make in RECIPES:
        recipe = make()
        folder = empty_folder(root / "tokenizers" / recipe.name)
        (folder / "tokenizer.json").write_text(recipe.to_json() + "\n", encoding="utf-8")
        rows = case_rows(recipe)
        write_jsonl(folder / "cases.jsonl", rows)
        write_jsonl(folder / "decode.jsonl", decode_rows(recipe, rows))
    write_jsonl(root / "tokenizers" / "nfc-lowercase" / "lowercase.jsonl", lowercase_rows())
