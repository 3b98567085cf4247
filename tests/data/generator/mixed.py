"""mixed/: prompts in which some positions are vectors, and the encoder side of the same thing.

llm/ and encoder/ are checkpoints with tokenizers. reference.* holds requests: a prefix shared
by candidates and one suffix each, scored by running every prompt alone and whole through
transformers. A service that shares the prefix must come to the same numbers.
"""

from pathlib import Path

import numpy as np

from . import tokenizer_files
from .checkpoints import write_checkpoint
from .common import load, normal, run, scatter, write_json, write_tensors

VECTOR = -1  # in lists of ids: here goes the next vector

# Segments of a prompt: a text, a token by its name, or a number of vectors. Every text is
# tokenised on its own, with added tokens as plain text.
END = {"token": "<|endoftext|>"}


def slot(count: int) -> dict:
    return {"vectors": count}


RANK = "Rank the items for the user. Query: "
REQUESTS = [
    {
        "name": "query and user",
        "prefix": [RANK, "red kettle", "\nUser: ", slot(4), "\nItem: "],
        "suffixes": [
            [END],
            [slot(1), END],
            [slot(2), END],
            [slot(3), END],
            [slot(4), END],
            [slot(5), END],
            [slot(1), "red kettle", END],
            [slot(1), "red kettle", END],  # the same words beside another vector
            ["blue kettle", slot(2), END],
            [slot(1), " title: ", "garden chair", " image: ", slot(3), " ", END],
            ["The kettle boils water in three minutes.", END],
            [slot(1), "商品 caf\u00e9 \U0001f600", END],
        ],
    },
    {
        "name": "anonymous",
        "prefix": [RANK, "table", "\nItem: "],
        "suffixes": [[slot(1), END], [slot(5), END], ["wooden table", slot(1), END]],
    },
    {
        "name": "long prefix",
        "prefix": [RANK, "garden chair " * 30, "\nUser: ", slot(5), " more: " * 8, slot(3), "\n"],
        "suffixes": [[slot(1), END], [slot(2), "garden chair " * 5, END], [END]],
    },
    {
        "name": "prefix of vectors only",
        "prefix": [slot(3)],
        "suffixes": [[slot(1), END], [END]],
    },
]

ENCODER_TEXTS = [
    ["Item information: ", "The red kettle boils water in three minutes."],
    ["Item information: ", ""],
    ["Item information: ", "商品 caf\u00e9 \U0001f600 " * 3],
    ["Item information: ", "The garden chair is made of painted steel, it folds flat. " * 7],
    [],  # the closing token alone: one row whatever T is
    ["yes"],  # two rows
]
LAST_ROWS = (1, 4, 50)


class Prompts:
    """Turns segments into ids and VECTOR marks."""

    def __init__(self, recipe):
        self.plain = recipe.plain_tokenizer()
        self.token_id = recipe.token_id

    def ids(self, segments: list) -> list[int]:
        ids = []
        for segment in segments:
            match segment:
                case {"token": name}:
                    ids.append(self.token_id(name))
                case {"vectors": count}:
                    ids += [VECTOR] * count
                case text:
                    ids += self.plain.encode(text, add_special_tokens=False).ids
        return ids


def score_alone(model, ids: list[int], vectors: np.ndarray) -> dict:
    """One prompt through transformers. Returns logits and final state at its last position."""
    mask = [int(i == VECTOR) for i in ids]
    words = [0 if i == VECTOR else i for i in ids]  # any word will do: it is replaced
    out = run(model, embeds=scatter(model, words, mask, vectors))
    return {"logits": out["logits"][-1], "hidden_last": out["hidden_states"][-1][-1]}


def write_requests(folder: Path, model, recipe) -> None:
    prompts = Prompts(recipe)
    width = model.config.hidden_size
    yes, no = recipe.token_id("yes"), recipe.token_id("no")
    tensors, requests = {}, []
    for r, request in enumerate(REQUESTS):
        def add(name: str, ids: list[int]) -> np.ndarray:
            """Stores a part of a prompt and returns its vectors; no tensor where it has none."""
            vectors = normal((ids.count(VECTOR), width), 0.5, "mixed", request["name"], name)
            tensors[f"{r}.{name}.ids"] = np.array(ids, np.int32)
            if len(vectors):
                tensors[f"{r}.{name}.vectors"] = vectors
            return vectors

        prefix = prompts.ids(request["prefix"])
        prefix_vectors = add("prefix", prefix)
        results, candidates = [], []
        for c, segments in enumerate(request["suffixes"]):
            suffix = prompts.ids(segments)
            vectors = add(f"suffix.{c}", suffix)
            result = score_alone(model, prefix + suffix, np.concatenate([prefix_vectors, vectors]))
            margin = result["logits"][yes] - result["logits"][no]
            results.append(result)
            candidates.append({
                "segments": segments, "ids": suffix, "n_vectors": len(vectors),
                "margin": float(margin),
            })
        for key in ("logits", "hidden_last"):
            tensors[f"{r}.{key}"] = np.stack([result[key] for result in results])
        tensors[f"{r}.margins"] = np.array([c["margin"] for c in candidates], np.float32)
        requests.append({
            "name": request["name"],
            "prefix": {"segments": request["prefix"], "ids": prefix,
                       "n_vectors": len(prefix_vectors)},
            "candidates": candidates,
        })
    write_json(folder / "reference.json", {"id_yes": yes, "id_no": no, "requests": requests})
    write_tensors(folder / "reference.safetensors", tensors)


def write_encoder(folder: Path, model, recipe) -> None:
    prompts = Prompts(recipe)
    tensors, entries = {}, []
    for i, segments in enumerate(ENCODER_TEXTS):
        ids = prompts.ids([*segments, END])
        states = run(model, ids)["hidden_states"][-1]
        tensors[f"{i}.ids"] = np.array(ids, np.int32)
        for count in LAST_ROWS:
            tensors[f"{i}.last_{count}"] = states[-count:]
        entries.append({
            "segments": [*segments, END], "ids": ids,
            "rows": {str(count): min(count, len(ids)) for count in LAST_ROWS},
        })
    write_json(folder / "encoder.json", {"texts": entries})
    write_tensors(folder / "encoder.safetensors", tensors)


def write(root: Path) -> None:
    folder = root / "mixed"
    recipe = tokenizer_files.qwen2()
    write_checkpoint(folder / "llm", recipe, "mixed/llm")
    write_checkpoint(folder / "encoder", recipe, "mixed/encoder", base_model_only=True)
    write_requests(folder, load(folder / "llm"), recipe)
    write_encoder(folder, load(folder / "encoder"), recipe)
