"""models/<case>/: tiny random checkpoints as save_pretrained writes them, and reference.safetensors
with every hidden state and the logits of two runs: one over ids, one with some positions
replaced by vectors.

Every case differs from its neighbours in one thing that a reader of such folders must get right.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

from .common import (
    empty_folder, fill_weights, load, normal, random_state, run, scatter,
    write_tensors,
)

LLAMA3_ROPE = {
    # Wavelengths below 16 stay, above 64 are divided by 32, those between are blended: with
    # head size 16 each of the three happens.
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def llama(**changes) -> LlamaConfig:
    options = dict(
        vocab_size=160, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512,
        rms_norm_eps=1e-5, rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        bos_token_id=0, eos_token_id=0, tie_word_embeddings=False,
    )
    return LlamaConfig(**options | changes)


def qwen2(**changes) -> Qwen2Config:
    options = dict(
        vocab_size=160, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512,
        rms_norm_eps=1e-6, rope_parameters={"rope_type": "default", "rope_theta": 1_000_000.0},
        bos_token_id=0, eos_token_id=0, tie_word_embeddings=True,
    )
    return Qwen2Config(**options | changes)


def qwen3(**changes) -> Qwen3Config:
    options = dict(
        vocab_size=160, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=16, max_position_embeddings=512,
        rms_norm_eps=1e-6, rope_parameters={"rope_type": "default", "rope_theta": 1_000_000.0},
        bos_token_id=0, eos_token_id=0, tie_word_embeddings=True,
    )
    return Qwen3Config(**options | changes)


# config.json of transformers 5 says rope_parameters and dtype. The checkpoints that people have
# were written before it.

def legacy_spelling(config: dict) -> None:
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    config["rope_scaling"] = None if rope["rope_type"] == "default" else rope
    config["torch_dtype"] = config.pop("dtype")
    config.pop("layer_types", None)


def oldest_spelling(config: dict) -> None:
    """A first-generation Llama file: what it does not say has its default (theta 10000)."""
    legacy_spelling(config)
    for key in ("rope_theta", "rope_scaling", "num_key_value_heads", "head_dim",
                "attention_bias", "mlp_bias", "tie_word_embeddings"):
        del config[key]


@dataclass
class Case:
    name: str
    config: PreTrainedConfig
    note: str
    edit: Callable[[dict], None] | None = None  # rewrites config.json after save_pretrained
    dtype: torch.dtype = torch.float32
    n: int = 24
    base_model_only: bool = False  # save the model inside: no "model." in front of the names
    save: dict = field(default_factory=dict)


CASES = [
    Case("llama-mha-untied", llama(num_key_value_heads=4),
         "as many kv heads as heads; a first-generation config.json that leaves the defaults out",
         edit=oldest_spelling),
    Case("llama-gqa-tied",
         llama(vocab_size=131, hidden_size=36, intermediate_size=52, num_hidden_layers=3,
               num_attention_heads=6, num_key_value_heads=2, tie_word_embeddings=True),
         "no dimension is a multiple of 8; `rope_parameters` spelling"),
    Case("llama3-rope-scaling",
         llama(vocab_size=64, num_attention_heads=2, num_key_value_heads=1,
               rope_parameters=LLAMA3_ROPE, tie_word_embeddings=True),
         "Llama 3 rope with all three frequency branches, 200 positions; one kv head; "
         "`rope_theta` + `rope_scaling` spelling",
         edit=legacy_spelling, n=200),
    Case("llama3-rope-parameters",
         llama(num_attention_heads=2, num_key_value_heads=2, rope_parameters=LLAMA3_ROPE),
         "the same rope, untied, spelled `rope_parameters`"),
    Case("llama-headdim", llama(head_dim=12, rms_norm_eps=1e-2),
         "head_dim 12 where hidden/heads is 8; an rms_norm_eps (0.01) that cannot be guessed"),
    Case("llama-bias", llama(attention_bias=True, mlp_bias=True),
         "attention_bias (q, k, v and o) and mlp_bias", edit=legacy_spelling),
    Case("llama-f16", llama(),
         "F16 on disk; row 5 of lm_head holds subnormal halves only",
         edit=legacy_spelling, dtype=torch.float16),
    Case("qwen2", qwen2(), "q, k, v biases and none on o; tied", edit=legacy_spelling),
    Case("qwen2-untied", qwen2(tie_word_embeddings=False),
         "untied; `rope_parameters` spelling"),
    Case("qwen3", qwen3(), "per-head q/k norm, head_dim 16 where hidden/heads is 8, tied",
         edit=legacy_spelling),
    Case("qwen3-untied", qwen3(tie_word_embeddings=False, rms_norm_eps=1e-2),
         "untied; rms_norm_eps 0.01, which the q/k norms use too; `rope_parameters` spelling"),
    Case("qwen3-sharded", qwen3(num_hidden_layers=3, tie_word_embeddings=False),
         "several shards and model.safetensors.index.json", edit=legacy_spelling,
         save={"max_shard_size": "80KB"}),
    Case("qwen3-bf16", qwen3(), "BF16 on disk", edit=legacy_spelling, dtype=torch.bfloat16),
    Case("qwen3-noprefix", qwen3(),
         "tensor names without `model.`, no lm_head: as Qwen3-Embedding ships",
         edit=lambda config: (legacy_spelling(config),
                              config.update(architectures=["Qwen3ForCausalLM"])),
         base_model_only=True),
    Case("qwen3-long", qwen3(vocab_size=64, hidden_size=24, num_attention_heads=3,
                             num_key_value_heads=1),
         "200 positions without rope scaling; `rope_parameters` spelling", n=200),
]


def build(case: Case):
    """The model in memory, in f32, its weights rounded to what the file's type can hold."""
    model = AutoModelForCausalLM.from_config(
        case.config, dtype=torch.float32, attn_implementation="eager"
    )
    fill_weights(model, case.name)
    if case.name == "llama-f16":
        # 2^-24 is the smallest half. Flushed to zero or misread, this logit is off by 1e-4.
        steps = torch.from_numpy(random_state(case.name, "subnormal").randint(-900, 900, 32))
        model.lm_head.weight.data[5] = steps * 2.0**-24
    for parameter in model.parameters():
        parameter.data = parameter.data.to(case.dtype).float()
    model.tie_weights()
    return model.eval()


def save(case: Case, model, folder: Path) -> None:
    model = model.to(case.dtype)
    (model.model if case.base_model_only else model).save_pretrained(folder, **case.save)
    if case.edit:
        path = folder / "config.json"
        config = json.loads(path.read_text())
        case.edit(config)
        path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def random_inputs(case: Case) -> tuple[list[int], list[int], np.ndarray]:
    """Ids, the mask of positions to replace (first, last, neighbours and some), the vectors."""
    rng = random_state(case.name, "input")
    ids = rng.randint(0, case.config.vocab_size, case.n).tolist()
    mask = (rng.random_sample(case.n) < 0.15).astype(int)
    mask[[0, 5, 6, 7, -1]] = 1
    vectors = normal((int(mask.sum()), case.config.hidden_size), 0.7, case.name, "vectors")
    return ids, mask.tolist(), vectors


def reference(case: Case, folder: Path) -> dict[str, np.ndarray]:
    """Runs the folder as it lies on disk, so that the edited config.json is what counts."""
    ids, mask, vectors = random_inputs(case)
    model = load(folder)
    words = run(model, ids)
    inputs_embeds = scatter(model, ids, mask, vectors)
    mixed = run(model, embeds=inputs_embeds)

    tensors = {
        "input_ids": np.array(ids, np.int32),
        "pre_norm": words["pre_norm"],
        "logits": words["logits"],
        "embeds_mask": np.array(mask, np.int32),
        "embeds_vectors": vectors,
        "inputs_embeds": inputs_embeds,
        "embeds_hidden_last": mixed["hidden_states"][-1],
        "embeds_logits": mixed["logits"],
    }
    for i, state in enumerate(words["hidden_states"]):
        tensors[f"hidden_states.{i}"] = state
    if case.dtype != torch.float32:
        rounded = run(load(folder, torch.bfloat16), ids)
        tensors["hidden_last_bf16"] = rounded["hidden_states"][-1]
        tensors["logits_bf16"] = rounded["logits"]
    return tensors


def write(root: Path) -> None:
    for case in CASES:
        folder = empty_folder(root / "models" / case.name)
        ids, _, _ = random_inputs(case)
        model = build(case)
        built = run(model, ids)
        save(case, model, folder)
        tensors = reference(case, folder)
        # What was saved is what was built: nothing lost, renamed or read with a default.
        assert np.array_equal(built["logits"], tensors["logits"]), case.name
        write_tensors(folder / "reference.safetensors", tensors)
