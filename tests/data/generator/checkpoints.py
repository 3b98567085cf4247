"""Whole checkpoint folders, model and tokenizer together, as the hub has them: bf16, tied, the
config.json and tokenizer_config.json spelled as in the Qwen3 releases."""

import json
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from .common import empty_folder, fill_weights, write_json
from .model_cases import legacy_spelling, qwen3
from .tokenizer_files import Recipe


def write_checkpoint(
    folder: Path, recipe: Recipe, seed: str, base_model_only: bool = False, **config
) -> None:
    empty_folder(folder)
    model = AutoModelForCausalLM.from_config(
        qwen3(
            vocab_size=recipe.vocab_rows(),
            bos_token_id=recipe.token_id("<|endoftext|>"),
            eos_token_id=recipe.token_id("<|im_end|>"),
            **config,
        ),
        dtype=torch.float32,
    )
    fill_weights(model, seed)
    model.tie_weights()
    model = model.to(torch.bfloat16)
    (model.model if base_model_only else model).save_pretrained(folder)

    path = folder / "config.json"
    values = json.loads(path.read_text())
    legacy_spelling(values)
    values["architectures"] = ["Qwen3ForCausalLM"]
    write_json(path, values)

    (folder / "tokenizer.json").write_text(recipe.to_json() + "\n", encoding="utf-8")
    flags = ("content", "lstrip", "normalized", "rstrip", "single_word", "special")
    write_json(folder / "tokenizer_config.json", {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": {
            str(token["id"]): {flag: token[flag] for flag in flags}
            for token in recipe.added_tokens()
        },
        "bos_token": None,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "model_max_length": 131072,
        "pad_token": "<|endoftext|>",
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    })
