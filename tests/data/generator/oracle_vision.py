"""The second opinion on CLIP and LLaVA: numpy, double precision, from the files alone."""

import json
import math
import re
from pathlib import Path

import numpy as np

from . import oracle

# Whatever the file calls its tensors, under these names: text., vision., projector., language.
SPELLINGS = [
    (r"^(model\.)?vision_tower\.(vision_model\.)?", "vision."),
    (r"^(model\.)?multi_modal_projector\.", "projector."),
    (r"^(language_model\.(model\.|(?!lm_head))|model\.language_model\.)", "language."),
    (r"^(language_model\.)?lm_head\.", "language.lm_head."),
    (r"^vision_model\.", "vision."),
    (r"^text_model\.", "text."),
]


def read(folder: Path) -> tuple[dict, dict[str, np.ndarray]]:
    config = json.loads((folder / "config.json").read_text())
    weights = {}
    for name, value in read_raw(folder).items():
        if config["model_type"] == "clip_vision_model":
            name = "vision." + name
        for pattern, replacement in SPELLINGS:
            name = re.sub(pattern, replacement, name)
        weights[name] = value
    return config, weights


def read_raw(folder: Path) -> dict[str, np.ndarray]:
    import torch
    from safetensors.torch import load_file

    return {name: tensor.to(torch.float64).numpy()
            for path in sorted(folder.glob("model*.safetensors"))
            for name, tensor in load_file(path).items()}


class Tower:
    """What both towers of CLIP have in common."""

    def __init__(self, config: dict, weights: dict[str, np.ndarray], prefix: str):
        self.heads = config["num_attention_heads"]
        self.layers = config["num_hidden_layers"]
        self.eps = config.get("layer_norm_eps", 1e-5)
        self.quick = config.get("hidden_act", "quick_gelu") == "quick_gelu"
        self.weights, self.prefix = weights, prefix

    def weight(self, name: str) -> np.ndarray:
        return self.weights[self.prefix + name]

    def linear(self, name: str, x: np.ndarray) -> np.ndarray:
        return x @ self.weight(name + ".weight").T + self.weight(name + ".bias")

    def norm(self, name: str, x: np.ndarray) -> np.ndarray:
        centred = x - x.mean(axis=-1, keepdims=True)
        variance = np.mean(centred * centred, axis=-1, keepdims=True)
        return (centred / np.sqrt(variance + self.eps) * self.weight(name + ".weight")
                + self.weight(name + ".bias"))

    def activation(self, x: np.ndarray) -> np.ndarray:
        return x / (1 + np.exp(-1.702 * x)) if self.quick else gelu(x)

    def blocks(self, x: np.ndarray, causal: bool) -> list[np.ndarray]:
        n, width = x.shape
        mask = np.triu(np.full((n, n), -np.inf), k=1) if causal else 0.0
        states = [x]
        for i in range(self.layers):
            layer = f"encoder.layers.{i}."
            y = self.norm(layer + "layer_norm1", x)
            q, k, v = (self.linear(layer + f"self_attn.{part}_proj", y)
                       .reshape(n, self.heads, -1).transpose(1, 0, 2) for part in "qkv")
            scores = q @ k.transpose(0, 2, 1) / np.sqrt(width // self.heads) + mask
            y = (oracle.softmax(scores) @ v).transpose(1, 0, 2).reshape(n, width)
            x = x + self.linear(layer + "self_attn.out_proj", y)
            y = self.activation(self.linear(layer + "mlp.fc1", self.norm(layer + "layer_norm2", x)))
            x = x + self.linear(layer + "mlp.fc2", y)
            states.append(x)
        return states


def gelu(x: np.ndarray) -> np.ndarray:
    return x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2


def see(config: dict, weights: dict[str, np.ndarray], picture: np.ndarray) -> dict:
    """One picture [3,S,S] through a vision tower."""
    tower = Tower(config, weights, "vision.")
    size, grid = config["patch_size"], config["image_size"] // config["patch_size"]
    kernel = tower.weight("embeddings.patch_embedding.weight")
    patches = [
        np.tensordot(kernel, picture[:, y * size:(y + 1) * size, x * size:(x + 1) * size]
                     .astype(np.float64), axes=3)
        for y in range(grid) for x in range(grid)
    ]
    x = np.stack([tower.weight("embeddings.class_embedding"), *patches])
    x = x + tower.weight("embeddings.position_embedding.weight")
    states = tower.blocks(tower.norm("pre_layrnorm", x), causal=False)
    return {"hidden_states": states, "pooled": tower.norm("post_layernorm", states[-1][0])}


def read_text(config: dict, weights: dict[str, np.ndarray], ids: np.ndarray) -> dict:
    """One text through CLIP's text tower."""
    tower = Tower(config, weights, "text.")
    x = tower.weight("embeddings.token_embedding.weight")[ids]
    x = x + tower.weight("embeddings.position_embedding.weight")[:len(ids)]
    states = tower.blocks(x, causal=True)
    last = tower.norm("final_layer_norm", states[-1])
    end = config["eos_token_id"]
    at = int(np.argmax(ids)) if end == 2 else ids.tolist().index(end)
    return {"hidden_states": states, "last": last, "pooled": last[at],
            "embeds": weights["text_projection.weight"] @ last[at]}


def clip(folder: Path, reference: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The tensors of clip/<case>/reference.safetensors, from its inputs."""
    config, weights = read(folder)
    towers = config if config["model_type"] == "clip_vision_model" else config["vision_config"]
    seen = [see(towers, weights, picture) for picture in reference["pixel_values"]]
    out = {f"vision.hidden_states.{i}": np.stack([s["hidden_states"][i] for s in seen])
           for i in range(towers["num_hidden_layers"] + 1)}
    out["vision.pooled"] = np.stack([s["pooled"] for s in seen])
    if "visual_projection.weight" not in weights:
        return out
    out["image_embeds"] = out["vision.pooled"] @ weights["visual_projection.weight"].T

    def unit(x: np.ndarray) -> np.ndarray:
        return x / np.linalg.norm(x, axis=-1, keepdims=True)

    embeds = []
    for k in range(sum(name.endswith("input_ids") for name in reference)):
        text = read_text(config["text_config"], weights, reference[f"text.{k}.input_ids"])
        states = text.pop("hidden_states")
        out |= {f"text.{k}.hidden_states.{i}": state for i, state in enumerate(states)}
        out |= {f"text.{k}.{name}": value for name, value in text.items()}
        embeds.append(text["embeds"])
    out["logits_per_image"] = (unit(out["image_embeds"]) @ unit(np.stack(embeds)).T
                               * np.exp(weights["logit_scale"]))
    return out


def llava(folder: Path, reference: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The tensors of one prompt of llava/<case>/reference.safetensors, from its inputs. The greedy
    tokens are given; what is computed is the logits that they follow from."""
    config, weights = read(folder)
    seen = [see(config["vision_config"], weights, picture) for picture in reference["pixel_values"]]
    features = np.stack([s["hidden_states"][config.get("vision_feature_layer", -2)] for s in seen])
    if config.get("vision_feature_select_strategy", "default") == "default":
        features = features[:, 1:]

    def linear(i: int, x: np.ndarray) -> np.ndarray:
        name = f"projector.linear_{i}."
        return x @ weights[name + "weight"].T + weights.get(name + "bias", 0.0)

    projected = linear(2, gelu(linear(1, features)))
    language = {name.removeprefix("language."): value for name, value in weights.items()
                if name.startswith("language.")}
    ids = np.concatenate([reference["input_ids"], reference["answer_ids"]])
    embeds = language["embed_tokens.weight"][ids]
    embeds[ids == config["image_token_index"]] = projected.reshape(-1, projected.shape[-1])
    run = oracle.run(config["text_config"], language, embeds=embeds)

    n = len(reference["input_ids"])
    out = {"image_features": features, "projected": projected, "inputs_embeds": embeds[:n],
           "pre_norm": run["pre_norm"][:n],
           "logits": run["logits"][n - len(reference["logits"]):n]}
    out |= {f"hidden_states.{i}": state[:n] for i, state in enumerate(run["hidden_states"])}
    steps = run["logits"][n - 1:-1]
    assert np.array_equal(steps.argmax(axis=-1), reference["answer_ids"])
    best = np.sort(steps, axis=-1)[:, -2:]
    return out | {"answer_gaps": best[:, 1] - best[:, 0]}
