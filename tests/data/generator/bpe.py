"""bpe/: what the tokenizers library learns from the texts of corpus.py, and its ids afterwards."""

import itertools
import random
from dataclasses import dataclass, field
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from . import corpus
from .common import empty_folder, write_json, write_jsonl
from .tokenizer_files import QWEN2_PATTERN, split_then_bytes

SPECIAL = ["<|endoftext|>", "<|yes|>", "<|no|>", *(f"<|item{i}|>" for i in range(1, 9))]
ODD_SPECIAL = ["<|é|>", "<|\"\\\t\x01|>", "a b"]

# Runs of one character, cut from the left; control characters; texts without anything in them.
RUNS = [sign * n for sign in "=-ab." for n in (1, 2, 3, 4, 5, 7, 8, 11, 16, 31)]
TEXTS = [*corpus.BYTE_LEVEL, "", " ", " ".join(RUNS), "\x00\x01\x7f \u0085\u00a0\ufeff\x00\x01"]

# Every pair as frequent as every other one, several times over.
TIES = [" ".join(map("".join, itertools.permutations(letters))) for letters in ("zyx", "bca")]

# Capitals that are one character, two (\u0130), longer or shorter in lower case, title case, and
# none.
CAPITALS = [*corpus.BYTE_LEVEL, "ÀÉÎÕÜ ŒUVRE ΣΊΣΥΦΟΣ ОДИН", "\u0130stanbul \u0130\u0130 I\u0307",
            "\u2126 \u212a \u212b \u023a \u023e \u1e9e \u01c5 \u01c4", "ⅠⅯ ⒶⓏ Ａ \U00010400\U00010427"]

UNSEEN = [
    "The kettle that boils water is cheaper than the garden chair, isn't it?",
    "  two  blanks   and\ta tab\r\n\r\n  and 2024 numbers 1,000.5 ====---- aaaaaaa",
    "<|yes|> or <|no|>? <|item1|><|item8|> <|item9|> <|endoftext|>",
    "größer, артикул, 商品検索, 한국어, मनक, 👍🏽 \x00\x07",
    "",
]


@dataclass
class Case:
    name: str
    texts: list[str]
    vocab_size: int
    min_frequency: int = 2
    words: str = "gpt2"
    special: list[str] = field(default_factory=list)
    lowercase: bool = False


CASES = [
    Case("gpt2", TEXTS, 600, special=SPECIAL),
    Case("qwen2", TEXTS, 520, 1, "qwen2", ODD_SPECIAL),
    Case("lowercase", CAPITALS, 420, words="qwen2", special=SPECIAL, lowercase=True),
    Case("ties", TIES, 280, 0),
    Case("used-up", TEXTS[:2], 4096, 12, special=SPECIAL[:3]),
]


def train(case: Case, texts: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    if case.words == "gpt2":
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    else:
        tokenizer.pre_tokenizer = split_then_bytes(QWEN2_PATTERN)
    if case.lowercase:
        tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=case.vocab_size,
        min_frequency=case.min_frequency,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=case.special,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def write(root: Path) -> None:
    for case in CASES:
        folder = empty_folder(root / "bpe" / case.name)
        tokenizer = train(case, case.texts)
        trained = tokenizer.to_str(pretty=True)
        shuffled = random.Random(case.name).sample(case.texts, len(case.texts))
        assert train(case, shuffled).to_str(pretty=True) == trained, case.name
        (folder / "tokenizer.json").write_text(trained, encoding="utf-8")
        write_json(folder / "options.json", {
            "vocab_size": case.vocab_size, "min_frequency": case.min_frequency,
            "words": case.words, "special": case.special, "lowercase": case.lowercase,
        })
        write_jsonl(folder / "texts.jsonl", [{"text": text} for text in case.texts])
        write_jsonl(folder / "cases.jsonl", [
            {"text": text, "ids": tokenizer.encode(text).ids} for text in [*case.texts, *UNSEEN]
        ])
