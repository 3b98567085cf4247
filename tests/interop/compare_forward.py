"""`mixrank forward` and `mixrank tokenize` against transformers, live: the same folders, the same
inputs, every hidden state and logit.

    compare_forward.py MIXRANK DATA [SEED]

MIXRANK is the program, DATA is tests/data. What is in tests/data was computed once; this computes
anew, with whatever versions are there, over random inputs of several lengths.
SPDX-License-Identifier: Apache-2.0
"""

import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # everything that is needed is in DATA
os.environ["TRANSFORMERS_VERBOSITY"] = "error"

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

logging.disable_progress_bar()

BOUND = 1e-5  # of the largest value of the tensor; the reason is in tests/data/README.md
LENGTHS = (1, 2, 17, 150)
SPECIAL = "<|endoftext|>"
TEXTS = (
    "red kettle",
    "Grand café, naïve Å - \U0001f600\U0001f44d\U0001f3fd and 搜索引擎",
    "it's 1,299.50  or   1234567\tand more  ",
    f"spelled {SPECIAL} in the text",
)


class Failures:
    """Counts comparisons, prints those that fail, remembers the worst of those that do not."""

    def __init__(self) -> None:
        self.compared = 0
        self.failed = 0
        self.worst = 0.0

    def check(self, good: bool, message: str) -> None:
        self.compared += 1
        if not good:
            self.failed += 1
            print(f"FAILED: {message}")


def mixrank(*arguments: str, text: str | None = None) -> str:
    done = subprocess.run(
        [sys.argv[1], *arguments], input=text, capture_output=True, text=True, timeout=120
    )
    if done.returncode != 0:
        raise RuntimeError(f"mixrank {' '.join(arguments)}: {done.stderr}")
    return done.stdout


def compare(failures: Failures, where: str, found: torch.Tensor, expected: torch.Tensor) -> None:
    if found.shape != expected.shape:
        failures.check(False, f"{where}: shape {list(found.shape)}, expected {list(expected.shape)}")
        return
    largest = expected.abs().max().item()
    off = (found - expected).abs().max().item()
    failures.worst = max(failures.worst, off / max(largest, 1e-30))
    failures.check(
        off <= BOUND * largest,
        f"{where}: off by {off:.3g}, {off / max(largest, 1e-30):.3g} of the largest, at most {BOUND}",
    )


def forward(model, folder: Path, ids: list[int], vectors: torch.Tensor | None, scratch: Path,
            failures: Failures, backend: str) -> None:
    """One input through both. -1 in ids takes the next row of vectors."""
    where = f"{folder.name}, {len(ids)} tokens, {backend}" + ("" if vectors is None else ", vectors")
    out = scratch / "out.safetensors"
    arguments = ["forward", "--model", str(folder), "--ids", ",".join(map(str, ids)), "--out", str(out),
                 "--backend", backend]
    mask = torch.tensor(ids) < 0
    embeds = model.get_input_embeddings()(torch.tensor([max(i, 0) for i in ids])).clone()
    if vectors is not None:
        embeds = embeds.masked_scatter(mask.unsqueeze(-1), vectors)
        save_file({"embeds": vectors}, scratch / "embeds.safetensors")
        arguments += ["--embeds", str(scratch / "embeds.safetensors")]
    mixrank(*arguments)
    found = load_file(out)
    result = model(inputs_embeds=embeds.unsqueeze(0), output_hidden_states=True, use_cache=False)
    failures.check(torch.equal(found["hidden_states.0"], embeds), f"{where}: embeddings, bit for bit")
    for i, expected in enumerate(result.hidden_states):
        compare(failures, f"{where}: hidden_states.{i}", found[f"hidden_states.{i}"], expected[0])
    compare(failures, f"{where}: logits", found["logits"], result.logits[0])


def check_model(folder: Path, scratch: Path, failures: Failures) -> None:
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    config = model.config
    draw = random.Random(f"{folder.name} {sys.argv[3] if len(sys.argv) > 3 else 1}")
    generator = torch.Generator().manual_seed(draw.randrange(1 << 32))
    scale = model.get_input_embeddings().weight.std().item()
    for length in LENGTHS:
        ids = [draw.randrange(config.vocab_size) for _ in range(length)]
        forward(model, folder, ids, None, scratch, failures, "scoring")
        slots = draw.sample(range(length), (length + 2) // 3)
        for slot in slots:
            ids[slot] = -1
        vectors = scale * torch.randn(len(slots), config.hidden_size, generator=generator)
        for backend in ("scoring", "blas", "oracle") if length == 17 else ("scoring",):
            forward(model, folder, ids, vectors, scratch, failures, backend)


def check_tokenizer(folder: Path, failures: Failures) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    lines = mixrank("tokenize", "--model", str(folder), "--json", text="\n".join(TEXTS) + "\n")
    for text, line in zip(TEXTS, lines.splitlines(), strict=True):
        expected = tokenizer(text, add_special_tokens=False)["input_ids"]
        found = json.loads(line)["ids"]
        failures.check(found == expected, f"{folder.name}: ids of {text!r}: {found}, expected {expected}")


def main() -> int:
    data = Path(sys.argv[2])
    failures = Failures()
    print(f"torch {torch.__version__}, transformers {transformers.__version__}")
    torch.set_num_threads(1)
    models = sorted(path.parent for path in data.glob("models/*/config.json"))
    with torch.no_grad(), tempfile.TemporaryDirectory(prefix="mixrank-interop-") as scratch:
        for folder in [*models, data / "mixed/llm", data / "reranker"]:
            check_model(folder, Path(scratch), failures)
    for folder in (data / "mixed/llm", data / "reranker"):
        check_tokenizer(folder, failures)
    print(f"{len(models)} models, {failures.compared} comparisons, {failures.failed} failed; "
          f"the largest difference is {failures.worst:.2g} of the largest value")
    return 0 if models and failures.failed == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
