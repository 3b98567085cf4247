"""A second opinion: the same forward pass in numpy, in double precision, from the files alone.

It shares no code with transformers. If both agree, the reference is a property of the files and
not of the library, and the difference between them says how many digits of the f32 reference
can be relied on.
"""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file


def read_weights(folder: Path) -> dict[str, np.ndarray]:
    """All tensors as float64, under names without "model.", whatever the file calls them."""
    tensors = {}
    for path in sorted(folder.glob("model*.safetensors")):
        for name, tensor in load_file(path).items():
            tensors[name.removeprefix("model.")] = tensor.to(torch.float64).numpy()
    return tensors


def inverse_frequencies(config: dict, head_dim: int) -> np.ndarray:
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    theta = rope.get("rope_theta") or config.get("rope_theta") or 10_000.0
    frequency = theta ** -(np.arange(0, head_dim, 2) / head_dim)
    if rope.get("rope_type", "default") == "default":
        return frequency
    assert rope["rope_type"] == "llama3"
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    turns = rope["original_max_position_embeddings"] * frequency / (2 * np.pi)
    # 1 where a frequency is kept, 0 where it is divided, and a straight line in between.
    kept = np.clip((turns - low) / (high - low), 0, 1)
    return frequency * (kept + (1 - kept) / rope["factor"])


def rms_norm(x: np.ndarray, weight: np.ndarray, eps: float) -> np.ndarray:
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps) * weight


def rotate(x: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """x is [heads, n, head_dim]; the halves of a head are the two coordinates of each pair."""
    first, second = np.split(x, 2, axis=-1)
    cos, sin = np.cos(angles), np.sin(angles)
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def forward(folder: Path, ids=None, embeds=None) -> dict:
    """What common.run returns, computed independently."""
    config = json.loads((folder / "config.json").read_text())
    return run(config, read_weights(folder), ids, embeds)


def run(config: dict, weights: dict[str, np.ndarray], ids=None, embeds=None) -> dict:
    """The same of a configuration and weights under names without "model."."""
    heads = config["num_attention_heads"]
    kv_heads = config.get("num_key_value_heads") or heads
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    eps = config["rms_norm_eps"]

    def linear(name: str, x: np.ndarray) -> np.ndarray:
        return x @ weights[name + ".weight"].T + weights.get(name + ".bias", 0.0)

    def split_heads(x: np.ndarray, count: int) -> np.ndarray:
        return x.reshape(len(x), count, head_dim).transpose(1, 0, 2)

    x = weights["embed_tokens.weight"][ids] if embeds is None else embeds.astype(np.float64)
    n = len(x)
    angles = np.arange(n)[:, None] * inverse_frequencies(config, head_dim)
    future = np.triu(np.full((n, n), -np.inf), k=1)

    states = [x]
    for i in range(config["num_hidden_layers"]):
        layer = f"layers.{i}."
        y = rms_norm(x, weights[layer + "input_layernorm.weight"], eps)
        q = split_heads(linear(layer + "self_attn.q_proj", y), heads)
        k = split_heads(linear(layer + "self_attn.k_proj", y), kv_heads)
        v = split_heads(linear(layer + "self_attn.v_proj", y), kv_heads)
        if layer + "self_attn.q_norm.weight" in weights:
            q = rms_norm(q, weights[layer + "self_attn.q_norm.weight"], eps)
            k = rms_norm(k, weights[layer + "self_attn.k_norm.weight"], eps)
        q, k = rotate(q, angles), rotate(k, angles)
        k, v = (np.repeat(t, heads // kv_heads, axis=0) for t in (k, v))
        attention = softmax(q @ k.transpose(0, 2, 1) / np.sqrt(head_dim) + future) @ v
        x = x + linear(layer + "self_attn.o_proj", attention.transpose(1, 0, 2).reshape(n, -1))

        y = rms_norm(x, weights[layer + "post_attention_layernorm.weight"], eps)
        gate = linear(layer + "mlp.gate_proj", y)
        x = x + linear(layer + "mlp.down_proj",
                       gate / (1 + np.exp(-gate)) * linear(layer + "mlp.up_proj", y))
        states.append(x)

    states[-1] = rms_norm(x, weights["norm.weight"], eps)
    head = weights.get("lm_head.weight", weights["embed_tokens.weight"])
    return {"hidden_states": states, "pre_norm": x, "logits": states[-1] @ head.T}
